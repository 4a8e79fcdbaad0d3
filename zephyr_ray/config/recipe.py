"""The values of an experiment: one frozen `Recipe`, a section per stage. Imports nothing heavy.

A recipe is one experiment. Fields marked as compute (`section.compute`) say how it runs and are left out of
fingerprints: changing the hardware never changes the experiment.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from zephyr_ray.config.data import Dialogues, Preferences, Tokenized
from zephyr_ray.config.evaluation import EvaluationSection
from zephyr_ray.config.feedback import DeltaJudge, Judging, Prompts, Sampling
from zephyr_ray.config.generation import Generation
from zephyr_ray.config.model import Chat, ModelSection
from zephyr_ray.config.rounds import EachRound
from zephyr_ray.config.section import Section, compute
from zephyr_ray.config.selection import Embeddings
from zephyr_ray.config.training import DPO, SFT, Extrapolation, Optimisation, ReferenceLogps


class RunSection(Section):
    root: str = compute("")
    """Where the run's artifacts are stored: a local path or any URI that pyarrow can open (s3://bucket/path ...)."""
    lease_s: float = compute(60.0, gt=0)
    """Seconds without a sign of life after which `--take-over` takes the run from the command that holds it. A sign is
    given six times in this time."""
    seed: int = Field(0, ge=0)
    """Seed of the order of the data, of sampling, of new weights, and of functions that make rows or models."""


class Recipe(Section):
    """One experiment, a section per stage."""

    run: RunSection = RunSection()
    rounds: int = Field(1, ge=1)
    """How many times the newest model answers the prompts, its answers are judged, and it is trained on their pairs
    (docs/rounds.md)."""
    each_round: EachRound = EachRound()
    model: ModelSection = ModelSection()
    chat: Chat = Chat()
    dialogues: Dialogues = Dialogues()
    sft: SFT | None = None
    preferences: Preferences = Preferences()
    tokenized: Tokenized = Tokenized()
    reference_logps: ReferenceLogps = ReferenceLogps()
    dpo: DPO = DPO()
    expo: Extrapolation | None = None
    prompts: Prompts = Prompts()
    sampling: Sampling | None = None
    judging: Judging | None = None
    generation: Generation | None = None
    embeddings: Embeddings | None = None
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="after")
    def _the_best_is_one_of_several(self) -> Recipe:
        if self.dpo.best_nll and self.preferences.rejected != "every_pair":
            raise ValueError(
                f"dpo.best_nll={self.dpo.best_nll:g} needs preferences.rejected=every_pair, where the completions of a "
                "prompt are trained on together"
            )
        return self

    @model_validator(mode="after")
    def _both_models_of_a_delta_answer(self) -> Recipe:
        judge = self.judging.judge if self.judging else None
        if not isinstance(judge, DeltaJudge) or self.sampling is None:
            return self
        pool = [member.name for member in self.sampling.pool]
        for field, name in (("chosen", judge.chosen), ("rejected", judge.rejected)):
            if name not in pool:
                raise ValueError(f"judging.judge.{field}={name}: sampling.pool has {', '.join(pool)}")
        if self.sampling.draw is not None and self.sampling.draw < len(pool):
            raise ValueError(
                f"sampling.draw={self.sampling.draw} asks some of {len(pool)} models, and judging.judge of type delta "
                "needs the answers of both; leave draw out"
            )
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
