"""Cleaning finds the noise that was planted in the embedded world's conversations, and leaves the rest."""

from __future__ import annotations

import pytest

from tests.integration.jobs import REPO
from tests.making import context_of, stage_of
from zephyr_ray.config import loader
from zephyr_ray.embedded import noise
from zephyr_ray.embedded.found_noise import Found, found
from zephyr_ray.pipeline.artifacts import Run

COUNT = 3_000


@pytest.fixture(scope="module")
def cleaned(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the recipe's stage makes of the rows."""
    folder = tmp_path_factory.mktemp("noisy")
    benchmark = folder / "benchmark.txt"
    noise.write_benchmark(benchmark)
    settings = [
        f"run.root={folder / 'run'}",
        f"dialogues.train.options.count={COUNT}",
        f'dialogues.decontaminate=["{benchmark}"]',
    ]
    recipe = loader.load([str(REPO / "recipes" / "noisy.yaml")], settings)
    artifact = Run(str(folder / "run")).artifact("dialogues")
    artifact.begin("f")
    artifact.finish({"fingerprint": "f", **stage_of(recipe, "dialogues").make(context_of(recipe, artifact))})
    kept, dropped = artifact.table().to_pylist(), artifact.table("dropped").to_pylist()
    assert len(kept) + len(dropped) == COUNT
    return found(noise.rows(0, COUNT), kept, dropped)


@pytest.mark.parametrize("kind", list(noise.SHARES))
def test_planted_noise_is_found(cleaned: Found, kind: noise.Kind) -> None:
    assert cleaned.planted[kind].rows == noise.SHARES[kind] * COUNT
    assert cleaned.planted[kind].share >= 0.98


def test_what_is_right_stays_as_it_is(cleaned: Found) -> None:
    assert cleaned.dropped.rows > 0.7 * COUNT
    assert cleaned.dropped.share <= 0.01
    assert cleaned.changed.share <= 0.001
