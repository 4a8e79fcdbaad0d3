"""A round of feedback and training: what it starts from, and what a recipe of several rounds must have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import pyarrow.fs as pafs

from zephyr_ray.config.feedback import POLICY, Deployment, Judging, LanguageModelJudges, Member, Sampling
from zephyr_ray.config.member_seeds import hash_64
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelInput

if TYPE_CHECKING:
    from zephyr_ray.config.recipe import Recipe
    from zephyr_ray.config.rounds import EachRound
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.stage import Stage

_FOLDER = re.compile(r"round_([1-9]\d*)")
_SEED_BITS = 31
M = TypeVar("M", bound=Member)


@dataclass(frozen=True)
class Round:
    """What a round begins with."""

    number: int
    policy: ModelInput | None
    """The newest model: training starts from it, and it answers where a pool names `policy`. None: the recipe trains
    none."""
    reference: ModelInput | None
    """The model whose log-probs the training meets, where its method has a reference."""
    pairs: tuple[Stage, ...] = ()
    """The stages `preferences` of the rounds before."""

    def put(self, stage: Stage) -> Stage:
        """A stage as one of the round. Stages that read it have to be given this one."""
        return replace(stage, round=self.number)

    def following(self, made: Mapping[str, Stage], start: ModelInput, section: EachRound) -> Round:
        """The round after this one.

        Args:
            made: The stages of this one by kind.
            start: The model that the first round starts from.
            section: How rounds follow each other.
        """
        trained = ModelInput(start.name, start.field, stage=made[section.method])
        reference = trained if section.reference == "previous" else start
        return Round(self.number + 1, trained, reference, (*self.pairs, made["preferences"]))

    def seed(self, run_seed: int) -> int:
        """The seed of what the round draws: in the first one the run's, so that a run can go on with more rounds."""
        return run_seed if self.number == 1 else hash_64("round", run_seed, self.number) % (1 << _SEED_BITS)

    def sampling(self, section: Sampling) -> Sampling:
        """The section, whose deployments of `policy` deploy the round's. Raises as `judging`."""
        return section.model_copy(update={"pool": self._members("sampling.pool", section.pool)})

    def judging(self, section: Judging) -> Judging:
        """The section, whose deployments of `policy` deploy the round's.

        Raises:
            UserError: There is one, and the recipe trains no model.
        """
        judge = section.judge
        if not isinstance(judge, LanguageModelJudges):
            return section
        models = self._members("judging.judge.models", judge.models)
        return section.model_copy(update={"judge": judge.model_copy(update={"models": models})})

    def own_models(self, models: dict[str, Stage]) -> dict[str, Stage]:
        """The stages whose checkpoints the round can deploy, by name: some, and the policy."""
        own = self.policy.stage if self.policy else None
        return models if own is None else models | {own.name: own}

    def _members(self, field: str, members: Iterable[M]) -> tuple[M, ...]:
        return tuple(self._resolved(field, each) for each in members)

    def _resolved(self, field: str, member: M) -> M:
        if not (isinstance(member, Deployment) and member.model == POLICY):
            return member
        if self.policy is None:
            raise UserError(
                f"{field} {member.name}: model={POLICY}: this recipe has no model to start from; set model.path, or "
                "give it an sft section"
            )
        of = self.policy
        named = {"model": of.stage.name} if of.stage else {"model": of.path, "revision": of.revision}
        return member.model_copy(update=named)


def rounds_of(run: Run) -> list[int]:
    """The rounds of a run that have a folder, the last one first, and the first round."""
    selector = pafs.FileSelector(run.path, allow_not_found=True)
    found = (_FOLDER.fullmatch(info.base_name) for info in run.filesystem.get_file_info(selector))
    return [*sorted({int(match[1]) for match in found if match} - {1}, reverse=True), 1]


def in_folder(name: str) -> tuple[int, str]:
    """The round of a stage, and its name within it, by its folder: `round_2/dpo` is (2, `dpo`)."""
    first, _, rest = name.partition("/")
    match = _FOLDER.fullmatch(first)
    return (int(match[1]), rest) if match and rest else (1, name)


def check_rounds(recipe: Recipe, methods: Sequence[str]) -> None:
    """Refuses a recipe whose further rounds would not learn from the newest model's answers.

    Args:
        recipe: The recipe.
        methods: The methods on pairs that it has a section for and whose models can answer.

    Raises:
        UserError: Names what is missing, and the way out.
    """
    if recipe.each_round.method not in methods:
        raise UserError(
            f"each_round.method={recipe.each_round.method}: this recipe trains no such policy on pairs; it trains "
            f"{', '.join(methods)}"
        )
    if recipe.rounds == 1:
        return
    asks = f"rounds={recipe.rounds}"
    for name in ("sampling", "judging"):
        if getattr(recipe, name) is None:
            does = "answer the prompts" if name == "sampling" else "judge the answers"
            raise UserError(f"{asks}: this recipe has no {name} section; add one with what is to {does} in each round")
    if recipe.preferences.train != "judgments":
        raise UserError(f"{asks}: every round would have the same pairs; set preferences.train=judgments")
    assert recipe.sampling is not None
    if not any(each.model == POLICY for each in recipe.sampling.deployments):
        raise UserError(
            f"{asks}: sampling.pool deploys no model={POLICY}, and the newest model would answer nothing; add "
            f"{{type: deployment, name: NAME, model: {POLICY}}}"
        )
