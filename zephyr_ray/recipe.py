"""Reads the values of an experiment -> one frozen `Recipe`, a section per stage. Imports nothing heavy.

A recipe is one experiment. Fields marked as compute (`_compute`) say how it runs and are left out of fingerprints:
changing the hardware never changes the experiment.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zephyr_ray.inference.seeds import find_clash

Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]


def _compute(default: Any, **constraints: Any) -> Any:
    """A field that says how the experiment runs, not what it is: not part of any fingerprint."""
    return Field(default, json_schema_extra={"compute": True}, **constraints)


class Section(BaseModel):
    """A frozen part of a recipe that refuses unknown keys; the string under each field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class RunSection(Section):
    root: str = _compute("runs/tiny")
    """Where everything of this run lives: a local path or any URI that pyarrow can open (s3://bucket/path ...)."""
    seed: int = Field(0, ge=0)
    """Seeds the order of the data, the embedded world, sampling and initialisation."""


class Lora(Section):
    r: int = Field(16, ge=1)
    """Rank of the adapter."""
    alpha: int = Field(16, ge=1)
    """Scale of the adapter: its output is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input. DPO runs with it off: a reference with dropout is another model."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter."""
    load_in_4bit: bool = False
    """QLoRA: the frozen base weights in 4-bit NF4 (bitsandbytes)."""


class ModelSection(Section):
    path: str | None = None
    """The supervised model that DPO starts from, which is also its frozen reference: a folder or hub id.
    None: the checkpoint that this run's `sft` stage makes."""
    revision: str | None = None
    """Branch, tag or commit, where the path is a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights in training. auto: bfloat16 on a GPU, float32 on a CPU."""
    attn_implementation: str = _compute("sdpa")
    """transformers' attention implementation."""
    lora: Lora | None = None
    """Train an adapter instead of all weights."""


class Chat(Section):
    template: str = "zephyr"
    """zephyr, model (the one that came with the tokenizer), or a Jinja file."""
    tokenization: Literal["modern", "zephyr_legacy"] = "modern"
    """modern: exactly what the template writes, up to the answer's end-of-sequence token.
    zephyr_legacy: as the published Zephyr was trained: BOS first, an empty system turn where there is none, and the
    answer's end followed by a newline and a second end-of-sequence token."""


class Tiny(Section):
    dialogues: int = Field(24_000, ge=1)
    """Demonstrations in the embedded world."""
    preference_prompts: int = Field(2_400, ge=1)
    """Prompts that the embedded world's answerers compete on."""
    held_out_prompts: int = Field(300, ge=1)
    """Prompts kept apart for the check at the end; none of them occurs in training."""
    flawed: float = Field(0.4, ge=0, le=1)
    """Share of the teacher's demonstrations that have a flaw (disclaimer, refusal, chatter, case, format)."""
    vocab_size: int = Field(640, ge=300)
    """Entries of the byte-level BPE tokenizer."""
    hidden_size: int = Field(128, ge=8)
    """Width of the Mistral-architecture model."""
    layers: int = Field(3, ge=1)
    """Its depth."""
    heads: int = Field(8, ge=2)
    """Its attention heads, each 32 wide (half as many key-value heads)."""


class Training(Section):
    workers: int = _compute(1, ge=1)
    """Ray Train workers. Their number divides the global batch."""
    cpus_per_worker: float = _compute(1, gt=0)
    """Logical CPUs that each worker asks Ray for."""
    gpus_per_worker: float = _compute(0, ge=0)
    """GPUs that each worker asks Ray for; 0 trains on the CPU."""
    labels: dict[str, str] = _compute({})
    """Ray node labels that the workers' nodes must carry."""
    micro_batch: int = _compute(8, ge=1)
    """Rows (pairs in DPO) per forward pass of one worker; the rest of the global batch is accumulated."""
    zero_stage: Literal[0, 1, 2, 3] = _compute(0)
    """DeepSpeed ZeRO stage; 0 is plain data parallelism."""
    gradient_checkpointing: bool = _compute(False)
    """Recompute activations in the backward pass: less memory, more time."""
    checkpoint_steps: int = _compute(100, ge=1)
    """Optimizer steps between two checkpoints: what a lost worker can cost."""
    max_failures: int = _compute(3, ge=0)
    """How often a lost worker is replaced before the job gives up."""
    keep_checkpoints: bool = _compute(False)
    """Keep the resumable training state after the stage is finished."""
    logging_steps: int = _compute(10, ge=1)
    """Optimizer steps between two metric rows."""
    report_to: tuple[str, ...] = _compute(("tensorboard",))
    """Trackers by TRL's names: tensorboard, wandb, mlflow ..."""
    trl: dict[str, Any] = {}
    """Any other option of TRL's SFTConfig or DPOConfig, by its own name (weight_decay, optim, ld_alpha ...)."""


class Optimisation(Section):
    learning_rate: float = Field(gt=0)
    """Peak learning rate."""
    lr_scheduler: Scheduler = "cosine"
    """Shape of the learning rate over the run."""
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    """Share of all steps in which the learning rate rises from 0."""
    epochs: float = Field(1, gt=0)
    """Passes over the rows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimizer steps instead (a smoke test)."""
    global_batch: int = Field(32, ge=1)
    """Rows (pairs in DPO) per optimizer step, whatever the number of workers."""
    training: Training = Training()

    @model_validator(mode="after")
    def _workers_divide_global_batch(self) -> Optimisation:
        if self.global_batch % self.training.workers:
            raise ValueError(
                f"training.workers={self.training.workers} does not divide global_batch={self.global_batch}; "
                f"choose a divisor, for example {_largest_divisor(self.global_batch, self.training.workers)}"
            )
        return self


class Dialogues(Section):
    train: str | tuple[str, ...] = "tiny"
    """`tiny` (the embedded world), or files or a dataset id: messages, ShareGPT, Alpaca, prompt + completion."""
    split: str = "train"
    """Split, where `train` is a dataset id."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Refuse to train when a larger share of the rows was dropped."""


class SFT(Optimisation):
    base: str = "tiny"
    """The raw model: a folder, a hub id, or `tiny` (made from scratch by the embedded world)."""
    revision: str | None = None
    """Branch, tag or commit, where the base is a hub id."""
    learning_rate: float = Field(2e-5, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens per row; a longer dialogue loses its tail."""
    packing: bool = False
    """Join dialogues and cut the stream into rows of exactly max_length (the handbook's way)."""
    loss_on: Literal["all", "assistant"] = "all"
    """Which tokens are learnt: all of the dialogue, or the assistant's only."""

    @model_validator(mode="after")
    def _packed_rows_have_no_mask(self) -> SFT:
        if self.packing and self.loss_on != "all":
            raise ValueError("packing=true needs loss_on=all")
        return self


class Preferences(Section):
    train: str | tuple[str, ...] = "tiny"
    """`tiny`, `judgments` (this run's own), or files, folders or a dataset id in any known layout (docs/data.md)."""
    split: str = "train"
    """Split, where `train` is a dataset id."""
    score: Literal["overall", "aspects"] = "overall"
    """What ranks several answers: the overall rating, or the mean of the aspects' ratings."""
    rejected: Literal["random_lower", "lowest", "every_pair"] = "random_lower"
    """Which answers are y_l where a row has several scored ones: a random one below the best (Zephyr), the lowest one,
    or every two answers as a pair of their own."""
    margin: float = Field(0.0, ge=0)
    """Scores of a pair must differ by more than this; 0: by anything."""
    disagreement: float | None = Field(None, gt=0, le=1)
    """Leave answers out whose overall rating and mean of aspects differ by more than this share of their scales.
    None: they are only counted, at 0.5."""
    decontaminate: tuple[str, ...] = ()
    """Files of benchmark prompts (JSON lines, JSON or text): a row whose prompt holds one of them is dropped."""
    decontaminate_words: int = Field(13, ge=3)
    """Words in a row that a prompt may not share with a benchmark prompt."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Refuse to train when a larger share of the rows was dropped."""


class Tokenized(Section):
    max_length: int = Field(1024, ge=4)
    """Tokens of prompt + completion; the completion loses its tail and then gets no end-of-sequence token."""
    max_prompt_length: int = Field(512, ge=1)
    """Tokens of the prompt; a longer one keeps its end."""

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> Tokenized:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"max_prompt_length={self.max_prompt_length} leaves no room for a completion in "
                f"max_length={self.max_length}"
            )
        return self


class ReferenceLogps(Section):
    workers: int = _compute(1, ge=1)
    """Actors that hold the reference model."""
    cpus_per_worker: float = _compute(1, gt=0)
    """Logical CPUs for each of them."""
    gpus_per_worker: float = _compute(0, ge=0)
    """GPUs for each of them."""
    labels: dict[str, str] = _compute({})
    """Ray node labels that their nodes must carry."""
    batch_size: int = _compute(16, ge=1)
    """Pairs per forward pass."""


class DPO(Optimisation):
    learning_rate: float = Field(5e-7, gt=0)
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference (the paper's beta)."""
    loss_type: tuple[str, ...] = ("sigmoid",)
    """TRL's loss types; several are added with `loss_weights`."""
    loss_weights: tuple[float, ...] | None = None
    """One weight for each loss type."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of wrong labels."""
    step0_tolerance: float = _compute(1e-3, gt=0)
    """How far the loss of the first step may be from its value for policy = reference (ln 2 for sigmoid)."""

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_weight_for_each_loss(self) -> DPO:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} entries for {len(self.loss_type)} loss types")
        return self


class HeldOut(Section):
    samples: int = Field(4, ge=1)
    """Answers drawn for each held-out prompt."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 takes the most likely token."""
    max_new_tokens: int = Field(48, ge=1)
    """Longest answer, in tokens."""
    workers: int = _compute(2, ge=1)
    """Actors that sample."""
    batch_size: int = _compute(64, ge=1)
    """Prompts per generation call."""


class Price(Section):
    input: float = Field(ge=0)
    """US dollars for a million tokens of prompts."""
    output: float = Field(ge=0)
    """US dollars for a million tokens of answers."""


class Prompts(Section):
    train: str | tuple[str, ...] = "tiny"
    """`tiny` (the embedded world), or files, folders or a dataset id with prompts (docs/data.md)."""
    split: str = "train"
    """Split, where `train` is a dataset id."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Refuse to go on when a larger share of the rows was dropped."""


class Endpoint(Section):
    name: str = Field(min_length=1)
    """What the rows call this member; unique in the pool, and part of its seeds."""
    base_url: str = _compute(...)
    """The OpenAI-compatible API, up to and with /v1: Ray Serve, vLLM or a remote one."""
    model: str = Field(min_length=1)
    """The model's id there."""
    api_key_env: str | None = _compute(None)
    """Environment variable of the workers that holds the key. None: no key is sent (a server of one's own)."""
    max_in_flight: int = _compute(64, ge=1)
    """Requests that all workers together may have open; fewer while the server says that it is too busy."""
    timeout_s: float = _compute(300.0, gt=0)
    """Seconds to wait for an answer (for a connection: at most 10) before the request is sent again."""
    retries: int = _compute(5, ge=0)
    """How often a request is sent again after 408, 409, 429, 5xx, a timeout, a lost connection or a broken reply."""
    price: Price | None = _compute(None)
    """What it costs; None: nothing."""

    @field_validator("base_url")
    @classmethod
    def _is_a_url_without_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL like http://host:8000/v1")
        if parts.username or parts.password:
            raise ValueError("a URL holds no user or password; name a variable in api_key_env")
        return value


OWN_MODELS = ("base", "sft")
"""Stages of a run whose checkpoints its own stages can deploy."""


class Deployment(Section):
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")
    """What the rows call this member; unique in the pool, and part of its seeds."""
    model: str = Field(min_length=1)
    """A stage of this run whose checkpoint it is (`base`, `sft`), a folder (the same on every node) or a hub id."""
    revision: str | None = None
    """Branch, tag or commit, where the model is a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights. auto: as they were saved."""
    max_model_len: int | None = Field(None, ge=16)
    """Longest prompt and answer together, in tokens. None: what the model's config allows."""
    engine: dict[str, Any] = _compute({})
    """Further engine options by vLLM's own names (tensor_parallel_size, gpu_memory_utilization ...)."""
    accelerator: Literal["cpu", "gpu"] = _compute("gpu")
    """What the engines run on."""
    kv_cache_gib: int = _compute(1, ge=1)
    """Memory for keys and values of each engine on a CPU."""
    min_replicas: int = _compute(1, ge=1)
    """Replicas that Ray Serve starts with."""
    max_replicas: int = _compute(1, ge=1)
    """Replicas at most."""
    max_in_flight: int = _compute(64, ge=1)
    """Requests that all workers together may have open; fewer while the server says that it is too busy."""
    timeout_s: float = _compute(300.0, gt=0)
    """Seconds to wait for an answer before the request is sent again."""
    retries: int = _compute(5, ge=0)
    """How often a request is sent again."""


class OfflineModel(Section):
    name: str = Field(min_length=1)
    """What the rows call this member; unique in the pool, and part of its seeds."""
    model: str = Field(min_length=1)
    """A folder (the same on every node) or a hub id."""
    engine: dict[str, Any] = {}
    """Any option of vLLM's engine by its own name (max_model_len, dtype, tensor_parallel_size, revision ...)."""
    env: dict[str, str] = _compute({})
    """Environment variables of the engine's process (VLLM_CPU_KVCACHE_SPACE ...)."""
    workers: int = _compute(1, ge=1)
    """Engines; the rows are divided among them."""
    cpus_per_worker: float = _compute(1, gt=0)
    """Logical CPUs for each process of an engine."""
    gpus_per_worker: float = _compute(0, ge=0)
    """GPUs for each process of an engine; 0 generates on the CPU."""
    batch_size: int = _compute(64, ge=1)
    """Requests per Ray Data batch; several batches are in the engine at a time."""


class Sampling(Section):
    endpoints: tuple[Endpoint, ...] = ()
    """Members of the pool that are servers which answer chat requests."""
    deployments: tuple[Deployment, ...] = ()
    """Members of the pool that the stage deploys on Ray Serve itself, and takes down when it is done."""
    offline: tuple[OfflineModel, ...] = ()
    """The pool as models that Ray Data loads into vLLM, without a server: for bulk. Not together with the others."""
    draw: int | None = Field(None, ge=1)
    """Members that answer each prompt, distinct and drawn by seed. None: every member."""
    samples: int = Field(1, ge=1, le=4096)
    """Answers from each member that answers."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 takes the most likely token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Smallest set of tokens whose probabilities reach this sum."""
    max_tokens: int = Field(512, ge=1)
    """Longest answer, in tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer; they are no part of it."""
    principles: bool = False
    """Give each answer a principle as system message, drawn by seed (UltraFeedback's way to answers that differ)."""
    extra: dict[str, Any] = {}
    """Other fields of a request (endpoints) or of vLLM's SamplingParams (offline) by their own name: top_k ..."""
    workers: int = _compute(1, ge=1)
    """Ray actors that hold the connections to the endpoints; one keeps hundreds of requests open."""
    cpus_per_worker: float = _compute(1, gt=0)
    """Logical CPUs for each of them."""
    budget_usd: float | None = _compute(None, gt=0)
    """The stage stops before it spends more than this, at the members' prices."""
    max_failed: float = _compute(0.01, ge=0, le=1)
    """The stage stays unfinished when a larger share of the rows failed; the next run tries these again."""

    @property
    def servers(self) -> tuple[Endpoint | Deployment, ...]:
        return (*self.endpoints, *self.deployments)

    @property
    def members(self) -> tuple[Endpoint | Deployment | OfflineModel, ...]:
        return self.servers or self.offline

    @model_validator(mode="after")
    def _one_pool(self) -> Sampling:
        if bool(self.servers) == bool(self.offline):
            raise ValueError("give the pool either endpoints and deployments, or offline models")
        if self.principles and self.offline:
            raise ValueError("principles are for endpoints and deployments")
        if self.draw is not None and self.draw > len(self.members):
            raise ValueError(f"draw={self.draw} from a pool of {len(self.members)}")
        clash = find_clash([member.name for member in self.members])
        if clash:
            raise ValueError(f"members {clash[0]} and {clash[1]} would share seeds; rename one")
        for member in self.servers:
            _check_share(member, self.workers)
        if self.budget_usd is not None and not any(member.price for member in self.endpoints):
            raise ValueError("budget_usd without a price at any endpoint")
        return self


Aspect = Literal["instruction_following", "honesty", "truthfulness", "helpfulness", "overall"]


class Judging(Section):
    judges: tuple[Endpoint, ...] = ()
    """Servers of language models that rate answers."""
    deployments: tuple[Deployment, ...] = ()
    """Language models as judges that the stage deploys on Ray Serve itself."""
    function: str | None = None
    """A program as judge, `module:function`: (messages, answer) -> overall score or None. Not together with others."""
    reward_model: str | None = None
    """A reward model as judge: folder or hub id of a sequence classifier with one output. Not together with others."""
    revision: str | None = None
    """Branch, tag or commit of the reward model, where it is a hub id."""
    aspects: tuple[Aspect, ...] = Field(
        ("instruction_following", "honesty", "truthfulness", "helpfulness", "overall"), min_length=1
    )
    """What language models rate: aspects from 1 to 5 with a rationale, overall from 1 to 10 with a critique."""
    presentation: Literal["together", "one_by_one"] = "together"
    """All answers to a prompt in one request, in an order drawn by seed, or a request for each."""
    repeats: int = Field(1, ge=1, le=16)
    """How often each judge rates; ratings are averaged, their spread is kept."""
    position_check: float = Field(0.05, ge=0, le=1)
    """Share of the prompts, drawn by seed, that is judged again in reversed order (with answers shown together)."""
    structured: bool = True
    """Ask for replies that follow a JSON schema; off for endpoints that know no `response_format`."""
    parse_retries: int = Field(2, ge=0)
    """How often a reply that cannot be read is asked for again, with what is wrong with it; then the rating is null."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the judges."""
    max_tokens: int = Field(1024, ge=1)
    """Longest reply, in tokens."""
    extra: dict[str, Any] = {}
    """Other fields of a request by their own name."""
    workers: int = _compute(1, ge=1)
    """Ray actors that hold the connections to the judges, or the reward model."""
    cpus_per_worker: float = _compute(1, gt=0)
    """Logical CPUs for each of them."""
    gpus_per_worker: float = _compute(0, ge=0)
    """GPUs for each of them (reward model)."""
    batch_size: int = _compute(16, ge=1)
    """Answers per forward pass of the reward model."""
    budget_usd: float | None = _compute(None, gt=0)
    """The stage stops before it spends more than this, at the judges' prices."""
    max_failed: float = _compute(0.01, ge=0, le=1)
    """The stage stays unfinished when a larger share of the rows failed; the next run tries these again."""

    @property
    def servers(self) -> tuple[Endpoint | Deployment, ...]:
        return (*self.judges, *self.deployments)

    @model_validator(mode="after")
    def _one_kind_of_judge(self) -> Judging:
        if sum(map(bool, (self.servers, self.function, self.reward_model))) != 1:
            raise ValueError("give judges (or deployments), or a function, or a reward_model")
        names = [judge.name for judge in self.servers]
        if len(set(names)) < len(names):
            raise ValueError("two judges have one name")
        if len(set(self.aspects)) < len(self.aspects):
            raise ValueError("an aspect is there twice")
        for judge in self.servers:
            _check_share(judge, self.workers)
        if self.budget_usd is not None and not any(judge.price for judge in self.judges):
            raise ValueError("budget_usd without a price at any judge")
        return self


def _check_share(member: Endpoint | Deployment, workers: int) -> None:
    if member.max_in_flight < workers:
        raise ValueError(f"{member.name}: max_in_flight={member.max_in_flight} for {workers} workers")


class Recipe(Section):
    """One experiment, a section per stage."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    chat: Chat = Chat()
    tiny: Tiny = Tiny()
    dialogues: Dialogues = Dialogues()
    sft: SFT | None = None
    preferences: Preferences = Preferences()
    tokenized: Tokenized = Tokenized()
    reference_logps: ReferenceLogps = ReferenceLogps()
    dpo: DPO = DPO()
    prompts: Prompts = Prompts()
    sampling: Sampling | None = None
    judging: Judging | None = None
    held_out: HeldOut | None = None

    @model_validator(mode="after")
    def _dpo_starts_somewhere(self) -> Recipe:
        if self.model.path is None and self.sft is None:
            raise ValueError("nothing to start DPO from: set model.path, or give the recipe an sft section")
        return self


def semantic(section: Section) -> dict[str, Any]:
    """The fields of a section that say what the experiment is, as plain JSON values; compute fields are left out."""
    plain: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("compute"):
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            plain[name] = semantic(value)
        elif isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
            plain[name] = [semantic(item) for item in value]
        else:
            plain[name] = section.model_dump(mode="json")[name]
    return plain


def _largest_divisor(number: int, at_most: int) -> int:
    return next(d for d in range(min(number, at_most), 0, -1) if number % d == 0)
