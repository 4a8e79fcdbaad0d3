"""`zephyr-ray run` and `zephyr-ray dry-run`: a recipe's pipeline, or part of it."""

from __future__ import annotations

from zephyr_ray.cli.recipe_options import (
    Begin,
    DryRun,
    Json,
    NoLease,
    Overrides,
    Overwrite,
    Recipes,
    TakeOver,
    Until,
    consent,
)


def run(
    recipe: Recipes,
    set_: Overrides = None,
    begin: Begin = None,
    until: Until = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = None,
    take_over: TakeOver = False,
    no_lease: NoLease = False,
    json_: Json = False,
) -> int:
    """Makes all that a recipe describes, top to bottom.

        zephyr-ray run tiny
        zephyr-ray run mine.yaml --set run.root=s3://BUCKET/RUN --set preferences.train=FILE
        zephyr-ray run zephyr-7b-beta/paper zephyr-7b-beta/feedback --until judgments

    A finished stage is skipped, and an unfinished one goes on where it stopped. A stale one is made anew only if
    --overwrite names it; the old one is moved, not deleted.
    """
    from zephyr_ray.cli import pipeline
    from zephyr_ray.training.methods import load_recipe

    return pipeline.run(
        lambda: load_recipe(recipe, set_ or ()),
        [until] if until else [],
        "run",
        begin=begin,
        evaluate=not until,
        only_show=dry_run,
        consent=consent(overwrite, take_over, no_lease),
        as_json=json_,
    )


def dry_run(recipe: Recipes, set_: Overrides = None, until: Until = None, json_: Json = False) -> int:
    """Shows a recipe and how each of its stages stands.

        zephyr-ray dry-run tiny
        zephyr-ray dry-run zephyr-7b-beta/paper --set model.path=DIR_OR_HUB_ID --set run.root=runs/mine

    A stage is done, stale (and why), or to do.
    """
    return run(recipe, set_, until=until, dry_run=True, json_=json_)
