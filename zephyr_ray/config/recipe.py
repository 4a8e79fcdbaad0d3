"""The values of an experiment: one frozen `Recipe`, a section per stage. Imports nothing heavy.

A recipe is one experiment. Fields marked as compute (`section.compute`) say how it runs and are left out of
fingerprints: changing the hardware never changes the experiment.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from zephyr_ray.config.feedback import Judging, Prompts, Sampling
from zephyr_ray.config.section import Function, Section, Source, compute

SMOOTHED = frozenset({"robust", "exo_pair", "aot", "aot_unpaired"})
"""TRL's DPO losses that read label_smoothing."""
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]


class RunSection(Section):
    root: str = compute("")
    """Where everything of this run lives: a local path or any URI that pyarrow can open (s3://bucket/path ...)."""
    seed: int = Field(0, ge=0)
    """Seeds the order of the data, sampling, initialisation, and functions that make rows or models."""


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
    """The supervised model that DPO starts from, which is also its frozen reference: a folder, URI or hub id.
    None: the checkpoint that this run's `sft` stage makes."""
    revision: str | None = None
    """Branch, tag or commit, where the path is a hub id."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights in training. auto: bfloat16 on a GPU, float32 on a CPU."""
    attn_implementation: str = compute("sdpa")
    """transformers' attention implementation."""
    lora: Lora | None = None
    """Train an adapter instead of all weights."""


class Chat(Section):
    template: str = "zephyr"
    """zephyr, model (the one that came with the tokenizer), or a Jinja file."""
    tokenization: Literal["modern", "zephyr_legacy"] = "modern"
    """modern: exactly what the template writes, up to the answer's end-of-sequence token.
    zephyr_legacy: as the published Zephyr was trained: BOS first, an empty system turn where there is none, the
    answer's end followed by a newline and a second end-of-sequence token, and pairs cut to length as TRL 0.7 did."""


class Training(Section):
    workers: int | tuple[int, int] = compute(1)
    """Ray Train workers. Two numbers, [fewest, most], for as many as the cluster has room for: training goes on with
    fewer when a node is lost, and with more when one joins."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs that each worker asks Ray for."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs that each worker asks Ray for; 0 trains on the CPU."""
    labels: dict[str, str] = compute({})
    """Ray node labels that the workers' nodes must carry."""
    engine: Literal["packed", "padded"] = compute("packed")
    """packed: rows without padding, in DPO each prompt once (docs/engine.md); padded: TRL's own way."""
    tokens_per_micro_batch: int = compute(4096, ge=1)
    """Packed: most tokens per forward pass of one worker, in DPO a pair's prompt counted once."""
    oversized: Literal["alone", "refuse"] = compute("alone")
    """Packed: a pair or dialogue of more than `tokens_per_micro_batch` is a forward pass alone, or is refused."""
    packed_attention: Literal["auto", "sdpa", "flex", "flash"] = compute("auto")
    """Packed: sdpa (torch, a call per completion), flex (FlexAttention), flash (the package flash-attn).
    auto: sdpa on a CPU; on a GPU flash where it is installed, else flex, or sdpa where flex does not compile. All know
    sliding windows and capped scores; sdpa multiplies capped ones out, which takes memory."""
    micro_batch: int = compute(8, ge=1)
    """Padded, and SFT with `packing`: rows (pairs in DPO) per forward pass of one worker; the rest of the global batch
    is accumulated."""
    zero_stage: Literal[0, 1, 2, 3] = compute(0)
    """DeepSpeed ZeRO stage; 0 is plain data parallelism."""
    gradient_checkpointing: bool | Annotated[int, Field(ge=1)] = compute(False)
    """Recompute activations in the backward pass: less memory, more time. true: of all decoder layers; a number: of so
    many, the first ones."""
    compile: bool = compute(False)
    """Packed: torch.compile of the decoder layers, the reference's too: faster, after a minute or more at the start."""
    checkpoint_steps: int | None = compute(100, ge=1)
    """Optimizer steps between two checkpoints: what a lost worker can cost. None: their number does not count."""
    checkpoint_minutes: float | None = compute(None, gt=0)
    """Minutes between two checkpoints, whatever a step takes. None: time does not count. The last step brings one."""
    scratch: str | None = compute(None)
    """A folder on a disk of each worker's node, for a checkpoint of its workers until it is stored, and for the export.
    None: in this platform's cache (ZEPHYR_RAY_CACHE)."""
    max_failures: int = compute(3, ge=0)
    """How often a lost worker is replaced before the job gives up."""
    keep_checkpoints: bool = compute(False)
    """Keep the resumable training state after the stage is finished."""
    logging_steps: int = compute(10, ge=1)
    """Optimizer steps between two metric rows."""
    report_to: tuple[str, ...] = compute(("tensorboard",))
    """Trackers by TRL's names: tensorboard, wandb, mlflow ..."""
    trl: dict[str, Any] = Field(default_factory=dict)
    """Other options of TRL's SFTConfig or DPOConfig, by their own names (weight_decay, optim, ld_alpha ...). One that
    has a field of its own here, or that nothing would read, is refused."""

    @property
    def fewest_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def recomputed_layers(self) -> int | None:
        """How many of the decoder layers recompute; None where it is all or none of them."""
        return None if isinstance(self.gradient_checkpointing, bool) else self.gradient_checkpointing

    @model_validator(mode="after")
    def _layers_are_counted_once(self) -> Training:
        if self.recomputed_layers and "every_n_layers" in (self.trl.get("gradient_checkpointing_kwargs") or {}):
            raise ValueError(
                f"gradient_checkpointing={self.recomputed_layers} counts the layers that recompute, and so does "
                "trl.gradient_checkpointing_kwargs.every_n_layers; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _layers_can_be_compiled(self) -> Training:
        if self.compile and self.engine == "padded":
            raise ValueError("compile=true needs engine=packed")
        if self.compile and self.zero_stage == 3:
            raise ValueError(
                "compile=true needs zero_stage 0, 1 or 2: under 3 a layer's weights come and go while it computes, and "
                "nothing of it could be fused"
            )
        return self

    @model_validator(mode="after")
    def _fewest_first(self) -> Training:
        if not 1 <= self.fewest_workers <= self.most_workers:
            raise ValueError(f"workers={json.dumps(self.workers)}: write a number, or [fewest, most], of at least 1")
        return self


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
    def _a_row_for_each_worker(self) -> Optimisation:
        if self.training.most_workers > self.global_batch:
            raise ValueError(
                f"training.workers={self.training.most_workers} for global_batch={self.global_batch}: a worker without "
                "a row would only wait for the others"
            )
        return self


class Dialogues(Section):
    train: Source | None = None
    """Files, a dataset id or a function: messages, ShareGPT, Alpaca, prompt + completion."""
    split: str = "train"
    """Split, where `train` is a dataset id."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Refuse to train when a larger share of the rows was dropped."""


class SFT(Optimisation):
    base: str | Function | None = None
    """The raw model: a folder, a URI, a hub id, or a function that makes one."""
    revision: str | None = None
    """Branch, tag or commit, where the base is a hub id."""
    learning_rate: float = Field(2e-5, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens per row; a longer dialogue loses its tail."""
    packing: bool = False
    """Join dialogues and cut the stream into rows of exactly max_length, in which they see each other (the handbook's
    way). Without it, the packed engine lets dialogues share a row unseen by each other."""
    loss_on: Literal["all", "assistant"] = "all"
    """Which tokens are learnt: all of the dialogue, or the assistant's only."""

    @model_validator(mode="after")
    def _packed_rows_have_no_mask(self) -> SFT:
        if self.packing and self.loss_on != "all":
            raise ValueError("packing=true needs loss_on=all")
        return self

    @model_validator(mode="after")
    def _joined_dialogues_are_not_compiled(self) -> SFT:
        if self.packing and self.training.compile:
            raise ValueError("training.compile=true needs packing=false: joined dialogues are not the packed engine's")
        return self


class Preferences(Section):
    train: Source | None = None
    """`judgments` (this run's own), or files, folders, a dataset id or a function, in any known layout
    (docs/data.md)."""
    split: str = "train"
    """Split, where `train` is a dataset id."""
    held_out: Source | None = None
    """Pairs that are not trained on, named as in `train`. DPO then ends with how often, and by how much, its implicit
    reward prefers their chosen answers (docs/evaluation.md)."""
    held_out_split: str = "test"
    """Split, where `held_out` is a dataset id."""
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
    """Refuse to train when a larger share of the rows, or of the held-out ones, was dropped."""

    @field_validator("held_out")
    @classmethod
    def _other_pairs(cls, value: Any) -> Any:
        if value == "judgments":
            raise ValueError("the run's own judgments are trained on; name files, a folder or a dataset id")
        return value


class Tokenized(Section):
    max_length: int = Field(1024, ge=4)
    """Tokens of prompt + completion; the completion loses its tail and then gets no end-of-sequence token.
    With zephyr_legacy both completions of a pair that is too long keep max_length - max_prompt_length tokens."""
    max_prompt_length: int = Field(512, ge=1)
    """Tokens of the prompt; a longer one keeps its end (with zephyr_legacy only where the pair would be too long)."""

    @model_validator(mode="after")
    def _room_for_a_completion(self) -> Tokenized:
        if self.max_prompt_length >= self.max_length:
            raise ValueError(
                f"max_prompt_length={self.max_prompt_length} leaves no room for a completion in "
                f"max_length={self.max_length}"
            )
        return self


class ReferenceLogps(Section):
    workers: int = compute(1, ge=1)
    """Actors that hold the reference model."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs for each of them."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs for each of them."""
    labels: dict[str, str] = compute({})
    """Ray node labels that their nodes must carry."""
    batch_size: int = compute(16, ge=1)
    """Padded: pairs per forward pass. Packed, `dpo.training.tokens_per_micro_batch` bounds it."""


class DPO(Optimisation):
    learning_rate: float = Field(5e-7, gt=0)
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference (the paper's beta)."""
    loss_type: tuple[str, ...] = ("sigmoid",)
    """TRL's loss types; several are added with `loss_weights`."""
    loss_weights: tuple[float, ...] | None = None
    """One weight for each loss type."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of wrong labels, for the losses that are made for it: robust, exo_pair, aot, aot_unpaired."""
    step0_tolerance: float | None = compute(None, gt=0)
    """How far policy and reference may be apart at the first step: nats of a completion's log-prob by the square root
    of its tokens (docs/engine.md). None: 0.3 in bfloat16, 0.001 in float32."""

    @field_validator("loss_type", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_weight_for_each_loss(self) -> DPO:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"loss_weights has {len(self.loss_weights)} entries for {len(self.loss_type)} loss types")
        return self

    @model_validator(mode="after")
    def _labels_are_smoothed_by_a_loss_that_does(self) -> DPO:
        if self.label_smoothing and not SMOOTHED & set(self.loss_type):
            raise ValueError(
                f"label_smoothing={self.label_smoothing:g} does nothing with loss_type={', '.join(self.loss_type)}; "
                "set loss_type=robust, or one of exo_pair, aot, aot_unpaired"
            )
        if "exo_pair" in self.loss_type and not self.label_smoothing:
            raise ValueError("loss_type=exo_pair needs label_smoothing over 0 (its paper takes 1e-3)")
        return self


class Evaluation(Function):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The stage's."""
    models: tuple[str, ...] = Field(("dpo",), min_length=1)
    """The stages of this run whose checkpoints it evaluates."""
    workers: int = compute(1, ge=1)
    """Actors that it may use, of a CPU each."""


class Recipe(Section):
    """One experiment, a section per stage."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    chat: Chat = Chat()
    dialogues: Dialogues = Dialogues()
    sft: SFT | None = None
    preferences: Preferences = Preferences()
    tokenized: Tokenized = Tokenized()
    reference_logps: ReferenceLogps = ReferenceLogps()
    dpo: DPO = DPO()
    prompts: Prompts = Prompts()
    sampling: Sampling | None = None
    judging: Judging | None = None
    evaluations: tuple[Evaluation, ...] = ()

    @model_validator(mode="after")
    def _dpo_starts_somewhere(self) -> Recipe:
        if self.model.path is None and self.sft is None:
            raise ValueError("nothing to start DPO from: set model.path, or give the recipe an sft section")
        return self

    @model_validator(mode="after")
    def _quantized_layers_are_not_compiled(self) -> Recipe:
        trainings = {name: value for name, value in self if isinstance(value, Optimisation)}
        for name, section in trainings.items():
            if section.training.compile and self.model.lora and self.model.lora.load_in_4bit:
                raise ValueError(
                    f"{name}.training.compile=true needs model.lora.load_in_4bit=false: bitsandbytes computes the "
                    "products of 4-bit weights, and has not been tried compiled"
                )
        return self
