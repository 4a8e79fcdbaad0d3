"""A recipe's sections for AI feedback: prompts, the pool that completes them, the judges. Imports nothing heavy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from zephyr_ray.config.data import Source
from zephyr_ray.config.member_seeds import find_clash
from zephyr_ray.config.section import Section, compute
from zephyr_ray.config.serving import ServedOnVllm


class Price(Section):
    input: float = Field(ge=0)
    """US dollars per million tokens of prompts."""
    output: float = Field(ge=0)
    """US dollars per million tokens of completions."""


class Prompts(Section):
    train: Source | None = None
    """Prompts to complete: files, folders, a dataset or a function (docs/feedback.md)."""
    decontaminate: tuple[str, ...] = ()
    """Files of benchmark prompts (JSON lines, JSON, CSV or text). A prompt that contains one of them is dropped before
    it is completed (docs/cleaning.md)."""
    decontaminate_words: int = Field(13, ge=3)
    """How many words in a row a message must share with a longer benchmark prompt for that."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Stop with an error if a larger share of the rows is dropped."""


class Endpoint(Section):
    """A server that answers OpenAI's chat requests."""

    type: Literal["endpoint"]
    """A server that is reached by its URL."""
    name: str = Field(min_length=1)
    """Name of the member in rows; unique in the pool, and part of its seeds."""
    base_url: str = compute(...)
    """Base URL of the OpenAI-compatible API, with /v1: Ray Serve, vLLM or a remote provider."""
    model: str = Field(min_length=1)
    """Id of the model on that server."""
    api_key_env: str | None = compute(None)
    """Environment variable of the workers that holds the API key. None: no key is sent."""
    max_in_flight: int = compute(64, ge=1)
    """Maximum open requests of all workers together; it is lowered while the server reports overload."""
    timeout_s: float = compute(300.0, gt=0)
    """Seconds to wait for a reply (for a connection: at most 10) before the request is sent again."""
    retries: int = compute(5, ge=0)
    """How many times a request is sent again after status 408, 409, 425, 429 or 5xx, a timeout, a lost connection or a
    malformed reply."""
    price: Price | None = compute(None)
    """What the server charges; None: nothing."""

    @field_validator("base_url")
    @classmethod
    def _is_a_url_without_secrets(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not a URL like http://host:8000/v1")
        if parts.username or parts.password:
            raise ValueError("a URL holds no user or password; name a variable in api_key_env")
        return value


POLICY = "policy"
"""The newest model of a run: the one that training on pairs starts from, then the one that the last round trained."""
OWN_MODELS = ("base", "sft", POLICY)
"""Models of a run that its own stages can deploy."""


class Deployment(ServedOnVllm):
    """A model that a stage deploys on Ray Serve and vLLM, and takes down when it is done.

    Its name is unique in the pool, and part of its seeds.
    """

    type: Literal["deployment"]
    """A model that the stage deploys itself."""
    model: str = Field(min_length=1)
    """What is deployed: a stage of this run (`base`, `sft`; for an evaluation any that makes a model, such as
    `round_2/dpo`), `policy` (in `sampling` and `judging` the newest model, docs/rounds.md), a folder that every node
    sees, a URI or a hub id."""
    max_in_flight: int = compute(64, ge=1)
    """Maximum open requests of all workers together; it is lowered while the server reports overload."""
    timeout_s: float = compute(300.0, gt=0)
    """Seconds to wait for a reply before the request is sent again."""
    retries: int = compute(5, ge=0)
    """How many times a failed request is sent again."""


class OfflineModel(Section):
    """A model that Ray Data loads into vLLM without a server: for bulk."""

    type: Literal["offline"]
    """A model without a server."""
    name: str = Field(min_length=1)
    """Name of the member in rows; unique in the pool, and part of its seeds."""
    model: str = Field(min_length=1)
    """A folder, at the same path on every node, or a hub id."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Engine options, by vLLM's own names (max_model_len, dtype, tensor_parallel_size, revision ...)."""
    env: dict[str, str] = compute({})
    """Environment variables of the engines' processes (VLLM_CPU_KVCACHE_SPACE ...)."""
    workers: int = compute(1, ge=1)
    """Number of engines; the rows are divided among them."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs per process of an engine."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs per process of an engine; 0 generates on the CPU."""
    batch_size: int = compute(64, ge=1)
    """Requests per Ray Data batch; an engine has several batches at a time."""


Server = Endpoint | Deployment
Member = Endpoint | Deployment | OfflineModel


class Requests(Section):
    """What a stage takes and may cost that sends requests to models."""

    workers: int = compute(1, ge=1)
    """Ray actors that send the requests; one keeps hundreds of them open."""
    cpus_per_worker: float = compute(1, gt=0)
    """Logical CPUs per actor."""
    labels: dict[str, str] = compute({})
    """Ray node labels that the actors' nodes must have."""
    budget_usd: float | None = compute(None, gt=0)
    """Spending limit of the stage in US dollars, at its models' prices, over all tries and recipes with this
    `run.root`. No request is sent that could exceed it. None: no limit."""
    max_failed: float = compute(0.01, ge=0, le=1)
    """Largest share of failed rows with which the stage counts as finished. With more, the next run tries them
    again."""

    @property
    @abstractmethod
    def deployments(self) -> tuple[Deployment, ...]:
        """The models that the stage deploys itself."""


class Sampling(Requests):
    pool: tuple[Annotated[Member, Field(discriminator="type")], ...]
    """The models that complete prompts. Offline models have a pool of their own, without endpoints and deployments."""
    draw: int | None = Field(None, ge=1)
    """How many members complete each prompt, drawn by seed without repetition. None: all members."""
    samples: int = Field(1, ge=1, le=4096)
    """Completions of a prompt by each member that is drawn for it."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 takes the most likely token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: only the most likely tokens, up to this sum of their probabilities."""
    max_tokens: int = Field(512, ge=1)
    """Maximum tokens of a completion."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are not part of it."""
    principles: bool = False
    """Give each completion a principle, drawn by seed, as its system message, so that completions differ (as in
    UltraFeedback)."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request (endpoints, deployments) or of vLLM's SamplingParams (offline), by their own names:
    top_k ..."""

    @property
    def completions(self) -> int:
        """Completions of each prompt."""
        return (self.draw or len(self.pool)) * self.samples

    @property
    def servers(self) -> tuple[Server, ...]:
        """The members that answer requests."""
        return tuple(member for member in self.pool if not isinstance(member, OfflineModel))

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return deployments_of(self.pool)

    @property
    def offline(self) -> tuple[OfflineModel, ...]:
        return tuple(member for member in self.pool if isinstance(member, OfflineModel))

    @model_validator(mode="after")
    def _one_pool(self) -> Sampling:
        if not self.pool:
            raise ValueError("pool is empty; name at least one model that answers")
        if self.servers and self.offline:
            raise ValueError("pool has offline models beside endpoints or deployments; give it one or the other")
        if self.principles and self.offline:
            raise ValueError("principles are for endpoints and deployments")
        if self.draw is not None and self.draw > len(self.pool):
            raise ValueError(f"draw={self.draw} from a pool of {len(self.pool)}")
        clash = find_clash([member.name for member in self.pool])
        if clash:
            raise ValueError(f"members {clash[0]} and {clash[1]} would share seeds; rename one")
        check_shares(self.servers, self.workers)
        check_budget(self.budget_usd, self.servers)
        return self


Aspect = Literal["instruction_following", "honesty", "truthfulness", "helpfulness", "overall"]


class LanguageModelJudges(Section):
    """Language models that rate each completion with reasons (UltraFeedback, arXiv 2310.01377)."""

    type: Literal["language_models"]
    """Language models that rate with reasons."""
    models: tuple[Annotated[Server, Field(discriminator="type")], ...]
    """The judges. Each of them rates every completion."""
    aspects: tuple[Aspect, ...] = Field(
        ("instruction_following", "honesty", "truthfulness", "helpfulness", "overall"), min_length=1
    )
    """What is rated: aspects from 1 to 5 with a rationale, overall from 1 to 10 with a critique."""
    presentation: Literal["together", "one_by_one"] = "together"
    """together: all completions of a prompt in one request, in an order drawn by seed; one_by_one: a request for each
    completion."""
    repeats: int = Field(1, ge=1, le=16)
    """How many times each judge rates a completion; the ratings are averaged, and their spread is kept."""
    position_check: float = Field(0.05, ge=0, le=1)
    """Share of the prompts, drawn by seed, that are judged again with the completions in reverse order (with `together`
    only)."""
    structured: bool = True
    """Ask for replies that follow a JSON schema; turn it off for servers without `response_format`."""
    parse_retries: int = Field(2, ge=0)
    """How many times a reply that cannot be read is asked for again, with what is wrong with it; after that the rating
    is null."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the judges."""
    max_tokens: int = Field(1024, ge=1)
    """Maximum tokens of a reply."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request, by their own names."""

    @model_validator(mode="after")
    def _each_once(self) -> LanguageModelJudges:
        if not self.models:
            raise ValueError("models is empty; name at least one judge")
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("two judges have one name")
        if len(set(self.aspects)) < len(self.aspects):
            raise ValueError("an aspect is there twice")
        return self


class FunctionJudge(Section):
    """A Python function that gives each completion a score."""

    type: Literal["function"]
    """A function that scores."""
    function: str = Field(min_length=1)
    """`module:function`, importable on every node. It gets (messages, completion) and returns a score, or None if it
    cannot tell."""


class RewardModelJudge(Section):
    """A reward model: a sequence classifier with one output."""

    type: Literal["reward_model"]
    """A reward model that scores."""
    model: str = Field(min_length=1)
    """`reward_model`, which this run trains on pairs that it does not judge; or a folder, URI or hub id of a sequence
    classifier with one output, with weights as safetensors."""
    revision: str | None = None
    """Branch, tag or commit, if `model` is a hub id."""
    gpus_per_worker: float = compute(0, ge=0)
    """GPUs per actor (`judging.workers`); 0 computes on the CPU."""
    batch_size: int = compute(16, ge=1)
    """Answers per forward pass."""


class DeltaJudge(Section):
    """A stronger and a weaker model, of whose answers one is chosen unread (delta learning, arXiv 2507.06187)."""

    type: Literal["delta"]
    """Two models of the pool, the better one first; nobody rates."""
    chosen: str = Field(min_length=1)
    """Name of the model in `sampling.pool` whose completions are chosen: they score 1."""
    rejected: str = Field(min_length=1)
    """Name of the weaker one, whose completions are rejected: they score 0. Those of other models have no score."""

    @model_validator(mode="after")
    def _two_models(self) -> DeltaJudge:
        if self.chosen == self.rejected:
            raise ValueError(f"chosen and rejected are both {self.chosen}; name two models of sampling.pool")
        return self


Judge = Annotated[LanguageModelJudges | FunctionJudge | RewardModelJudge, Field(discriminator="type")]


class Judging(Requests):
    judge: Annotated[LanguageModelJudges | FunctionJudge | RewardModelJudge | DeltaJudge, Field(discriminator="type")]
    """Who rates the completions."""
    workers: int = compute(1, ge=1)
    """Ray actors that send requests to language models, or that hold the reward model. A function runs in Ray Data's
    tasks instead."""

    @property
    def gpus_per_worker(self) -> float:
        return self.judge.gpus_per_worker if isinstance(self.judge, RewardModelJudge) else 0

    @property
    def servers(self) -> tuple[Server, ...]:
        return self.judge.models if isinstance(self.judge, LanguageModelJudges) else ()

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return deployments_of(self.servers)

    @model_validator(mode="after")
    def _judges_fit(self) -> Judging:
        check_shares(self.servers, self.workers)
        check_budget(self.budget_usd, self.servers)
        return self


def deployments_of(members: Iterable[Section]) -> tuple[Deployment, ...]:
    """The members of a pool that a stage deploys itself."""
    return tuple(member for member in members if isinstance(member, Deployment))


def check_shares(servers: Iterable[Server], workers: int) -> None:
    """Raises ValueError if a worker's share of a member's open requests would be none."""
    for server in servers:
        if server.max_in_flight < workers:
            raise ValueError(f"{server.name}: max_in_flight={server.max_in_flight} for {workers} workers")


def check_budget(budget_usd: float | None, servers: Iterable[Server]) -> None:
    """Raises ValueError for a budget where nothing has a price."""
    if budget_usd is not None and not any(isinstance(each, Endpoint) and each.price for each in servers):
        raise ValueError("budget_usd without a price at any endpoint")
