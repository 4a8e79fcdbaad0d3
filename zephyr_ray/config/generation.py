"""A recipe's section for dialogues that teachers make: who they are, how, how many. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from zephyr_ray.config.data import Source
from zephyr_ray.config.feedback import (
    Deployment,
    Endpoint,
    Requests,
    Server,
    check_budget,
    check_shares,
    deployments_of,
)
from zephyr_ray.config.member_seeds import find_clash
from zephyr_ray.config.section import Section


class SelfInstruct(Section):
    """Instructions that the teacher adds to those that it is shown (Self-Instruct, arXiv 2212.10560)."""

    type: Literal["self_instruct"]
    """The teacher is shown instructions and writes more of them."""
    dialogues: int = Field(ge=1)
    """How many dialogues are planned."""
    turns: int = Field(1, ge=1, le=64)
    """Messages of the user in a dialogue; those after the first are written by a simulated user."""
    shown: int = Field(8, ge=1)
    """Instructions that a request shows: three quarters of them seeds, the rest the teacher's own."""
    new: int = Field(8, ge=1)
    """Instructions that a request asks for."""
    similarity: float = Field(0.7, gt=0, le=1)
    """An instruction is left out if its ROUGE-L F-measure with an earlier one is above this."""
    rounds: int = Field(100, ge=1)
    """Most rounds of requests. A round shows each instruction that there is about once."""


class SelfPrompting(Section):
    """A seed is answered, and the teacher refines it in view of the answer (Zephyr, arXiv 2310.16944, 3.1)."""

    type: Literal["self_prompting"]
    """The teacher refines seeds in view of its own answers."""
    dialogues: int = Field(ge=1)
    """How many dialogues are planned; the seeds take turns."""
    turns: int = Field(1, ge=1, le=64)
    """Messages of the user in a dialogue; those after the first are written by a simulated user."""
    refinements: int = Field(1, ge=1, le=64)
    """How often an instruction is answered and refined before its answer is kept."""


class SimulatedUser(Section):
    """A seed is answered, and the teacher goes on as the user too (UltraChat, arXiv 2305.14233)."""

    type: Literal["simulated_user"]
    """The teacher plays the user who wrote the seed."""
    dialogues: int = Field(ge=1)
    """How many dialogues are planned; the seeds take turns."""
    turns: int = Field(3, ge=1, le=64)
    """Messages of the user in a dialogue, of which the seed is the first."""


class Magpie(Section):
    """The teacher completes its template's beginning of a user's message (Magpie, arXiv 2406.08464)."""

    type: Literal["magpie"]
    """The teacher completes its chat template's beginning of a user's message; there are no seeds."""
    dialogues: int = Field(ge=1)
    """How many dialogues are planned."""
    turns: int = Field(1, ge=1, le=64)
    """Messages of the user in a dialogue."""
    tokenizers: dict[str, str] = Field(default_factory=dict)
    """For each endpoint of the pool, by name, a folder or hub id with the tokenizer and chat template of its model. A
    deployment has its own."""


Method = SelfInstruct | SelfPrompting | SimulatedUser | Magpie


class Generation(Requests):
    pool: tuple[Annotated[Server, Field(discriminator="type")], ...]
    """The teachers: deployments and endpoints. Each dialogue is made by one of them, drawn by seed."""
    methods: tuple[Annotated[Method, Field(discriminator="type")], ...]
    """How dialogues are made, each method once."""
    seeds: Source | None = None
    """Seeds of all methods but magpie: files, folders, a dataset or a function, in any layout of prompts
    (docs/data.md)."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature of answers."""
    user_temperature: float = Field(1.0, ge=0)
    """Sampling temperature of instructions and of the simulated user's messages."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: only the most likely tokens, up to this sum of their probabilities."""
    max_tokens: int = Field(1024, ge=1)
    """Maximum tokens of a reply. One that is cut there is not used."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of a request, by their own names: top_k ..."""
    max_dropped: float = Field(0.5, ge=0, le=1)
    """Stop with an error if a larger share of the planned dialogues is dropped."""

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return deployments_of(self.pool)

    @property
    def planned(self) -> int:
        """How many dialogues are planned, by all methods together."""
        return sum(method.dialogues for method in self.methods)

    def method(self, name: str) -> Method:
        """The method of a type that the section has."""
        return next(method for method in self.methods if method.type == name)

    @model_validator(mode="after")
    def _teachers_fit(self) -> Generation:
        if not self.pool:
            raise ValueError("pool is empty; name at least one teacher")
        clash = find_clash([member.name for member in self.pool])
        if clash:
            raise ValueError(f"members {clash[0]} and {clash[1]} would share seeds; rename one")
        check_shares(self.pool, self.workers)
        check_budget(self.budget_usd, self.pool)
        return self

    @model_validator(mode="after")
    def _methods_fit(self) -> Generation:
        names = [method.type for method in self.methods]
        if not names:
            raise ValueError("methods is empty; name self_instruct, self_prompting, simulated_user or magpie")
        if len(set(names)) < len(names):
            raise ValueError("a method is there twice; give it more dialogues instead")
        seeded = [name for name in names if name != "magpie"]
        if seeded and self.seeds is None:
            raise ValueError(f"{seeded[0]} starts from seeds; name them in seeds")
        if not seeded and self.seeds is not None:
            raise ValueError("seeds are read by none of the methods")
        return self

    @model_validator(mode="after")
    def _magpie_has_a_template(self) -> Generation:
        endpoints = {member.name for member in self.pool if isinstance(member, Endpoint)}
        for method in self.methods:
            if isinstance(method, Magpie) and method.tokenizers.keys() != endpoints:
                wrong = sorted(method.tokenizers.keys() ^ endpoints)[0]
                if wrong in endpoints:
                    raise ValueError(f"magpie needs the template of endpoint {wrong}: name its tokenizer in tokenizers")
                raise ValueError(f"magpie's tokenizers name {wrong}, which is no endpoint of the pool")
        return self
