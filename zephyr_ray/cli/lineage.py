"""`zephyr-ray lineage`: what a checkpoint, a row or a fingerprint came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.pipeline.lineage.changed import Made
    from zephyr_ray.pipeline.lineage.facts import Lineage
    from zephyr_ray.pipeline.lineage.reading import Place

Root = Annotated[
    str, typer.Argument(metavar="ROOT", help="a run, the folder of one of its stages (ROOT/dpo), or a checkpoint")
]
Row = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="a pair_id, prompt_id or dialogue_id, or its first digits; or its source, as data/ and dropped/ have it",
    ),
]
Fingerprint = Annotated[
    str | None,
    typer.Option(metavar="PREFIX", help="what has it, and what changed since; also an answer's system_fingerprint"),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="ROOT", help="with --fingerprint: compare with this run, not with ROOT's own recipe"),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Card = Annotated[bool, typer.Option("--card", help="print the model card as of now, with the run's evaluations")]
RecipeText = Annotated[bool, typer.Option("--recipe", help="print the recipe that made it")]


def lineage(
    root: Root,
    row: Row = None,
    fingerprint: Fingerprint = None,
    against: Against = None,
    as_json: Json = False,
    card: Card = False,
    recipe: RecipeText = False,
) -> int:
    """Says what a checkpoint, a row or a fingerprint came from.

        zephyr-ray lineage runs/tiny                       # every stage behind the run's model
        zephyr-ray lineage runs/tiny --row PAIR_ID         # one row, from its source to the models
        zephyr-ray lineage runs/tiny --fingerprint PREFIX  # whose it is, and which fields changed since
        zephyr-ray lineage runs/tiny/dpo --card > README.md

    It only reads. ROOT may be a URI; a folder of a checkpoint that was copied elsewhere has its lineage with it.
    """
    asked = {"--row": row, "--fingerprint": fingerprint, "--card": card or None, "--recipe": recipe or None}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)}: give one of them")
    if against is not None and fingerprint is None:
        raise UserError("--against goes with --fingerprint")
    if row is not None:
        return _show_row(root, row, as_json)
    if fingerprint is not None:
        return _show_fingerprint(root, fingerprint, against, as_json)
    if recipe:
        print(_recipe_text(root), end="")
        return 0
    return _show_lineage(root, as_json, card)


def _show_lineage(root: str, as_json: bool, card: bool) -> int:
    from zephyr_ray.pipeline.lineage import facts, text

    found, place = _lineage(root)
    if card:
        print(_card(root, found, place), end="")
    elif as_json:
        _print_json(facts.as_json(found))
    else:
        print("\n".join(text.lines_of(found)).rstrip())
    return 0


def _lineage(root: str) -> tuple[Lineage, Place | None]:
    """The lineage that a path names, and the run that it was read from; None: the checkpoint's own file."""
    from zephyr_ray.pipeline.lineage import reading

    own = reading.exported(root)
    if own is not None:
        return own, None
    place = reading.located(root)
    return reading.lineage_of(place), place


def _card(root: str, lineage: Lineage, place: Place | None) -> str:
    from zephyr_ray.pipeline.lineage.export import card_of
    from zephyr_ray.pipeline.lineage.model_card import card

    model = lineage.stage(lineage.of[0]) if len(lineage.of) == 1 else None
    if model is None or not model.finished or not model.trained:
        trained = ", ".join(each.stage for each in lineage.stages if each.trained) or "none yet"
        raise UserError(f"--card: {root} is not one trained model; name the stage, such as ROOT/dpo (there: {trained})")
    return card(lineage) if place is None else card_of(lineage, place.run.artifact(model.stage))


def _recipe_text(root: str) -> str:
    """The resolved recipe of a run, or the one that a checkpoint's file has."""
    from zephyr_ray.pipeline.lineage import reading

    own = reading.exported_recipe(root)
    return own if own is not None else reading.recipe_text(reading.located(root).run)


def _show_fingerprint(root: str, prefix: str, against: str | None, as_json: bool) -> int:
    from zephyr_ray.pipeline.lineage import changed, reading

    run = reading.located(root).run
    stages = reading.stages_of(run)
    match = changed.find_fingerprint(stages, prefix)
    if against is None:
        others, what = _as_recipe(run), f"the recipe of {run.root}"
    else:
        other = reading.located(against).run
        others, what = changed.recorded(reading.stages_of(other)), other.root
    found = changed.changed_since(stages, match.stage, others, what)
    if as_json:
        _print_json(changed.as_json(match, found))
    else:
        of = "" if match.what == "artifact" else f"{match.what} of "
        print("\n".join([f"{match.fingerprint} is {of}{match.stage} in {run.root}", *changed.lines_of(found)]))
    return 0


def _as_recipe(run: Run) -> dict[str, Made]:
    """What the stages of a run would be made from by the recipe that lies in it."""
    from zephyr_ray import zephyr
    from zephyr_ray.pipeline.lineage import changed, reading
    from zephyr_ray.pipeline.stage import identities
    from zephyr_ray.training.methods import parse_recipe

    where = f"{run.root}/recipe.yaml"
    stages = zephyr.stages(parse_recipe(reading.recipe_text(run), where))
    return changed.as_recipe({each.name: (each.config, known) for each, known in identities(stages, run).items()})


def _show_row(root: str, row: str, as_json: bool) -> int:
    from zephyr_ray.data.row_lineage import text
    from zephyr_ray.data.row_lineage.trace import trace
    from zephyr_ray.pipeline.lineage import reading

    run = reading.located(root).run
    found = trace(run, reading.stages_of(run), row)
    if as_json:
        _print_json(found.data)
    else:
        print("\n".join(text.lines_of(found)).rstrip())
    return 0


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))
