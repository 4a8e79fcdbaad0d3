"""The way from prompts to an aligned model by one command: killed and rerun, and what it says of itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.integration.jobs import REPO, kill_and_finish, manifest, run_job

pytestmark = pytest.mark.timeout(1800)

STAGES = ("prompts", "candidates", "judgments", "preferences", "tokenized", "reference_logps", "dpo")


@pytest.fixture(scope="module")
def way(base_model: Path) -> tuple[str, ...]:
    deployment = (
        f"{{name: random, model: {base_model}, accelerator: cpu, dtype: float32, max_model_len: 128, "
        "max_in_flight: 16, engine: {max_num_seqs: 16}}"
    )
    return (
        "tiny.preference_prompts=48",
        f"model.path={base_model}",
        f"sampling.deployments=[{deployment}]",
        "sampling.samples=3",
        "sampling.max_tokens=12",
        "judging.function=tests.integration.judges:length",
        "preferences.max_dropped=0.9",
        "dpo.global_batch=8",
        "dpo.max_steps=6",
        "dpo.training.workers=1",
        "dpo.training.zero_stage=0",
        "dpo.training.micro_batch=8",
        "dpo.training.checkpoint_steps=2",
    )


@pytest.fixture(scope="module", autouse=True)
def _judges_are_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPO))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, way: tuple[str, ...]) -> Path:
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole") / "run"
    run_job("pipeline", root, *way)
    return root


def test_killed_three_times_it_ends_the_same(whole: Path, tmp_path: Path, way: tuple[str, ...]) -> None:
    root = tmp_path / "run"

    def replies() -> int:
        return sum(len(file.read_bytes().splitlines()) for file in (root / "candidates" / "replies").glob("*.jsonl"))

    moments = (
        lambda: replies() >= 20,
        lambda: (root / "judgments").exists(),
        lambda: (root / "dpo" / "metrics.jsonl").exists(),
    )
    for moment in moments:
        kill_and_finish("pipeline", root, *way, when=moment)
    before = time.time()
    run_job("pipeline", root, *way)
    assert all(manifest(root, stage)["counts"] == manifest(whole, stage)["counts"] for stage in STAGES[:-1])
    assert (root / "candidates" / "manifest.json").stat().st_mtime < before  # only what was left was made
    mine, theirs = (load_file(path / "dpo" / "checkpoint" / "model.safetensors") for path in (root, whole))
    assert max(float(np.abs(mine[name] - theirs[name]).max()) for name in theirs) < 1e-5


def test_one_engine_of_two_is_killed(tmp_path: Path, way: tuple[str, ...], base_model: Path) -> None:
    root, prompts = tmp_path / "run", 200
    engines = (
        f"sampling.deployments=[{{name: random, model: {base_model}, accelerator: cpu, dtype: float32, "
        "max_model_len: 128, max_in_flight: 16, min_replicas: 2, max_replicas: 2, engine: {max_num_seqs: 16}}]"
    )
    few = (*way, engines, f"tiny.preference_prompts={prompts}", "sampling.max_tokens=48")
    replies = root / "candidates" / "replies"

    def under_way() -> bool:
        return sum(len(file.read_bytes().splitlines()) for file in replies.glob("*.jsonl")) >= 100

    status, seen = kill_and_finish("candidates", root, *few, when=under_way, victim="EngineCore")
    assert status == 0, seen
    rows = pq.read_table(root / "candidates" / "data").to_pylist()
    assert len({row["prompt_id"] for row in rows}) == len(rows) == prompts
    assert all(row["error"] is None and len(row["completions"]) == 3 for row in rows)
    assert len({(row["prompt_id"], each["seed"]) for row in rows for each in row["completions"]}) == 3 * prompts


def test_a_second_run_skips_everything(whole: Path, way: tuple[str, ...]) -> None:
    seen = run_job("pipeline", whole, *way)
    assert [line.split()[0] for line in seen.splitlines() if "already done" in line] == list(STAGES)


def test_what_would_run_and_why(whole: Path, way: tuple[str, ...]) -> None:
    table = run_job("pipeline", whole, *way, "preferences.rejected=lowest", options=("--dry-run",))
    after = table[table.index(f"in {whole}:") :]
    status = {line.split()[0]: line for line in after.splitlines()}
    assert status["judgments"].endswith("done")
    assert status["preferences"].endswith("stale (preferences.rejected)")
    assert status["dpo"].endswith("stale (input reference_logps, input tokenized)")


@pytest.mark.parametrize(
    ("options", "override", "said"),
    [
        (("--from", "dpo"), "run.seed=5", "--from dpo: prompts is stale (seed); start there, or leave --from out"),
        (
            ("--from", "sft"),
            "run.seed=0",
            "--from sft: this recipe has no such stage on its way; it has prompts, candid",
        ),
        (("--until", "judgments"), "judging.function=nowhere:judge", "judging.function=nowhere:judge: No module named"),
        (("--until", "candidates"), "sampling.deployments=[{name: a, model: /nowhere}]", "/nowhere is not a folder"),
        (
            ("--until", "candidates"),
            "sampling.workers=9",
            "for sampling there is no room: this machine has 4 CPU",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    whole: Path, tmp_path: Path, way: tuple[str, ...], options: tuple[str, ...], override: str, said: str
) -> None:
    root = whole if options[0] == "--from" else tmp_path / "run"
    seen = run_job("pipeline", root, *way, override, options=options, expect=2)
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in seen
