"""How a recipe evaluates models: by functions, and by questions and a judge. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zephyr_ray.config.feedback import Deployment, Judge, Requests, Server, check_budget, check_shares, deployments_of
from zephyr_ray.config.member_seeds import find_clash
from zephyr_ray.config.section import Function, Section, compute

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class Evaluation(Function):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the evaluation, and of its stage."""
    models: tuple[str, ...] = Field(("dpo",), min_length=1)
    """Stages of this run whose checkpoints are evaluated."""
    workers: int = compute(1, ge=1)
    """Actors that the function may use, one CPU each."""


class HeldOutModel(Section):
    """A model from outside of the run."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of its stages."""
    model: str = Field(min_length=1)
    """A folder, URI or hub id, with the tokenizer of the model that DPO starts from."""
    revision: str | None = Field(None, min_length=1)
    """Branch, tag or commit, if `model` is a hub id."""


class MTBench(Section):
    """MT-Bench (arXiv 2306.05685): questions of two turns, whose answers a judge scores or compares."""

    questions: str = Field(min_length=1)
    """File of the questions, FastChat's `question.jsonl`: question_id, category, turns."""
    references: str | None
    """File of reference answers in FastChat's layout of answers. The judge sees them beside answers to questions of
    math, reasoning and coding. null: it judges these without."""
    judge_prompts: str | None = None
    """FastChat's `judge_prompts.jsonl`. None: our own prompts, of the same scheme."""
    mode: Literal["single", "pairwise", "both"] = "single"
    """single: each answer gets a score from 1 to 10; pairwise: each is compared with the baseline's, in both orders."""
    baseline: str | None = None
    """The model of `evaluation.models` that the others are compared with, by name."""
    samples: int = Field(1, ge=1, le=64)
    """How many times the judge is asked about an answer; more than one shows the variance of its scores."""
    max_tokens: int = Field(1024, ge=1)
    """Maximum tokens of an answer."""

    @model_validator(mode="after")
    def _has_a_baseline_if_it_compares(self) -> MTBench:
        if self.mode == "single" and self.baseline is not None:
            raise ValueError("baseline is read by mode pairwise and both; set one of them, or leave it out")
        if self.mode != "single" and self.baseline is None:
            raise ValueError(f"mode={self.mode} compares with a baseline; name a model of evaluation.models")
        return self


class AlpacaEval(Section):
    """AlpacaEval (arXiv 2404.04475): answers to instructions, each compared with a baseline's by a judge."""

    instructions: str = Field(min_length=1)
    """File of the instructions, JSON lines or an array: instruction, and dataset if there is one."""
    baseline: str = Field(min_length=1)
    """The model of `evaluation.models` that the others are compared with, by name; or a file of its answers in
    AlpacaEval's layout (instruction, output, generator)."""
    orders: Literal["drawn", "both"] = "drawn"
    """drawn: the two answers are shown once, in an order drawn by seed for each instruction, as AlpacaEval does; both:
    in both orders, and verdicts that differ are a draw."""
    temperature: float = Field(0.7, ge=0)
    """Sampling temperature of the answers."""
    max_tokens: int = Field(2048, ge=1)
    """Maximum tokens of an answer."""


class JudgeAgreement(Section):
    """How well the recipe's judge (`judging.judge`) agrees with people, and with itself."""

    pairs: str = Field(min_length=1)
    """File of pairs with people's labels, in a layout that docs/evaluation.md lists. A language model judges each in
    both orders and at least twice."""
    judge: Judge | None = None
    """Who is held against people, in the layout of `judging.judge`: `{type: reward_model, model: reward_model}` is the
    one that this run trains. None: the recipe's own judge."""


class Versus(Section):
    """Two models' answers to the same prompts, compared by the judge until it is decided which is better."""

    prompts: str = Field(min_length=1)
    """File of prompts in any known layout (docs/data.md); of a dialogue, what precedes its last answer."""
    a: str
    """The model of `evaluation.models` whose wins are counted, by name."""
    b: str
    """The one that it is compared with."""
    block: int = Field(20, ge=1)
    """Prompts that are judged before the next look at the interval."""
    temperature: float = Field(0.7, ge=0)
    """Sampling temperature of the answers."""
    max_tokens: int = Field(1024, ge=1)
    """Maximum tokens of an answer."""

    @model_validator(mode="after")
    def _of_two(self) -> Versus:
        if self.a == self.b:
            raise ValueError(f"a and b are both {self.a}; name two models")
        return self


class EvaluationSection(Requests):
    """How models are evaluated. The bounds of the requests hold for each stage that asks a model or the judge."""

    functions: tuple[Evaluation, ...] = ()
    """Python functions of one's own that evaluate checkpoints of this run."""
    held_out_models: tuple[HeldOutModel, ...] = ()
    """Models beside those that this run trains on pairs, whose implicit reward is evaluated on `preferences.held_out`
    too, against the model that DPO starts from."""
    models: tuple[Annotated[Server, Field(discriminator="type")], ...] = ()
    """The models that answer questions: endpoints, and deployments that run one at a time. A deployment's model may be
    any stage of this run that makes one (`base`, `sft`, `dpo` ...)."""
    judge: Annotated[Server, Field(discriminator="type")] | None = None
    """The language model that judges answers."""
    structured: bool = False
    """Ask the judge for replies that follow a JSON schema, as a small model needs. Otherwise it replies in free text
    with a mark such as [[8]] or [[A]]."""
    judge_temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the judge."""
    judge_max_tokens: int = Field(2048, ge=1)
    """Maximum tokens of the judge's reply."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the requests to models, by their own names: top_p, chat_template_kwargs ..."""
    judge_extra: dict[str, Any] = Field(default_factory=dict)
    """The same of requests to the judge."""
    mt_bench: MTBench | None = None
    alpaca_eval: AlpacaEval | None = None
    judge_agreement: JudgeAgreement | None = None
    versus: Versus | None = None

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return deployments_of(self.servers)

    @property
    def servers(self) -> tuple[Server, ...]:
        """Everything that is asked."""
        return (*self.models, *([self.judge] if self.judge else ()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(each.name for each in self.models)

    def model(self, name: str) -> Server:
        """The model of this name."""
        return next(each for each in self.models if each.name == name)

    @model_validator(mode="after")
    def _each_held_out_model_once(self) -> EvaluationSection:
        names = [each.name for each in self.held_out_models]
        if again := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"held_out_models: {again} is there twice; rename one")
        return self

    @model_validator(mode="after")
    def _models_fit(self) -> EvaluationSection:
        names = self.names
        for server in self.servers:
            if not _NAME.fullmatch(server.name):
                raise ValueError(f"{server.name}: a model's name is that of files here: letters, digits, '.', '_', '-'")
        clash = find_clash(names)
        if clash:
            raise ValueError(f"models {clash[0]} and {clash[1]} would share seeds; rename one")
        check_shares(self.servers, self.workers)
        check_budget(self.budget_usd, self.servers)
        return self

    @model_validator(mode="after")
    def _benchmarks_have_what_they_ask(self) -> EvaluationSection:
        asking = (("mt_bench", self.mt_bench), ("alpaca_eval", self.alpaca_eval), ("versus", self.versus))
        for name, section in asking:
            if section is not None and not (self.models and self.judge):
                raise ValueError(f"{name} asks models and a judge; name them in models and judge")
        for side in (self.versus.a, self.versus.b) if self.versus else ():
            if side not in self.names:
                raise ValueError(f"versus compares {side}; name two of the models ({', '.join(self.names)})")
        compared = self.mt_bench and self.mt_bench.baseline
        if compared and compared not in self.names:
            raise ValueError(f"mt_bench.baseline={compared}: name one of the models ({', '.join(self.names)})")
        for name, section in (("mt_bench", self.mt_bench), ("alpaca_eval", self.alpaca_eval)):
            if section is not None and self.names == (section.baseline,):
                raise ValueError(f"{name}.baseline is the only model; add others that are compared with it")
        if self.mt_bench and self.mt_bench.samples > 1 and not self.judge_temperature:
            raise ValueError("mt_bench.samples above 1 needs judge_temperature above 0, or all samples are the same")
        return self
