"""Which stages of a run a model was made from, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zephyr_ray.pipeline.lineage.facts import Lineage, StageFacts, is_replaced


def of_lineage(
    stages: Mapping[str, StageFacts], root: str, targets: Iterable[str], *, with_evaluations: bool = True
) -> Lineage:
    """The lineage of some stages of a run: they and everything that they were made from, each after its inputs.

    Args:
        stages: All stages of the run, by name.
        root: The run's.
        targets: Names of stages.
        with_evaluations: Add the finished evaluations of the models among them.
    """
    ordered: dict[str, StageFacts] = {}

    def visit(name: str) -> None:
        if name in ordered or name not in stages:
            return
        for each in stages[name].inputs:
            if each.stage is not None and each.stage != name:
                visit(each.stage)
        ordered[name] = stages[name]

    wanted = tuple(targets)
    for target in wanted:
        visit(target)
    models = {each.stage for each in ordered.values() if each.is_model}
    evaluations = [each for each in stages.values() if each.is_evaluation and each.finished and with_evaluations]
    return Lineage(
        root,
        wanted,
        tuple(ordered.values()),
        tuple(each for each in evaluations if models & _made_from(each.stage, stages)),
    )


def final_models(stages: Mapping[str, StageFacts]) -> list[str]:
    """The finished models of a run that no other finished model of it was made from."""
    models = [each.stage for each in stages.values() if each.is_model and each.finished and not is_replaced(each.stage)]
    before: set[str] = set().union(*(_made_from(name, stages) - {name} for name in models))
    return [name for name in models if name not in before]


def _made_from(name: str, stages: Mapping[str, StageFacts]) -> set[str]:
    """A stage and all that it was made from, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        here = waiting.pop()
        if here not in found and here in stages:
            found.add(here)
            waiting += [each.stage for each in stages[here].inputs if each.stage]
    return found
