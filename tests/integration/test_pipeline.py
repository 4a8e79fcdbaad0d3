"""The whole way by one command: killed and rerun in a bucket, an engine killed, and what it says of itself.

README: the pipeline killed while it samples, judges and trains; the whole way in a bucket; one of two engines; rounds.
"""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load, load_file

from tests import embedded_world
from tests.integration.bucket import (
    KEY,
    ROOT,
    SECRET,
    Machine,
    left_behind,
    names,
    read,
    settings,
    texts,
)
from tests.integration.jobs import copy_run, kill_and_finish, manifest, metrics, run_job
from tests.s3_server import wait
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.model_source import stage_source
from zephyr_ray.serving.model_spec import checkpoint_of_run

pytestmark = pytest.mark.timeout(1200)

STAGES = (
    *("base", "dialogues", "tokenized_dialogues", "sft", "prompts", "candidates", "judgments", "preferences"),
    *("tokenized", "reference_logps", "dpo", "held_out"),
)
SMALL = (
    f"sft.base={embedded_world.base(hidden_size=64, layers=2, dialogues=64)}",
    f"dialogues.train={embedded_world.rows('dialogues', 64)}",
    f"prompts.train={embedded_world.rows('prompts', 48)}",
    "sft.max_steps=2",
    "sft.training.workers=1",
    "sampling.samples=3",
    "sampling.max_tokens=12",
    "judging.judge={type: function, function: tests.integration.judges:length}",
    "preferences.max_dropped=0.9",
    "preferences.cut_answers=keep",  # a random model ends of itself hardly ever
    "dpo.global_batch=8",
    "dpo.max_steps=8",
    "dpo.training.workers=1",
    "dpo.training.zero_stage=0",
    "dpo.training.micro_batch=8",
    "dpo.training.checkpoint_steps=2",
    f"evaluation.functions={embedded_world.held_out(prompts=8, samples=1, max_new_tokens=4)}",
)


@pytest.fixture(scope="module")
def whole(killed: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on this machine's disk that nothing disturbed from sampling on; what comes before is that of the bucket."""
    root = tmp_path_factory.mktemp("whole") / "run"
    for stage in STAGES[: STAGES.index("candidates")]:
        pafs.copy_files(f"bucket/run/{stage}", str(root / stage), source_filesystem=Run(ROOT).filesystem)
    run_job("pipeline", root, *SMALL)
    return root


@pytest.fixture(scope="module")
def killed(here: Machine) -> str:
    """The whole way in a bucket, killed while it samples, judges and trains; what its last run said."""
    way = settings(ROOT, *SMALL)
    for number, moment in enumerate((_samples, _judges, _trains)):
        log = here.place / f"killed-{number}.log"
        process = here.start("jobs/pipeline.py", *way, log=log)
        wait(moment, process, log, 400)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert Run(ROOT).artifact("dpo").manifest() is None
    assert [name for name in names() if name.startswith("dpo/tensorboard/")]
    return here.run("jobs/pipeline.py", *way)


def test_killed_three_times_it_ends_the_same(here: Machine, whole: Path, killed: str) -> None:
    assert re.search(r"^dpo +resuming$", killed, re.MULTILINE)
    assert _done(killed) == list(STAGES[:-2])
    found = {stage: Run(ROOT).artifact(stage).manifest() or {} for stage in STAGES}
    assert all(found[stage]["counts"] == manifest(whole, stage)["counts"] for stage in STAGES if _has_counts(stage))
    folder = stage_source(Run(ROOT).artifact("dpo")).path.removeprefix("s3://")
    mine = load(Run(ROOT).filesystem.open_input_stream(f"{folder}/model.safetensors").read())
    theirs = load_file(whole / "dpo" / "checkpoint" / "model.safetensors")
    assert max(float(np.abs(mine[name] - theirs[name]).max()) for name in theirs) < 1e-5


@pytest.mark.usefixtures("killed")
def test_what_lies_in_the_bucket_and_nowhere_else(here: Machine) -> None:
    for stage in STAGES:
        files = (Run(ROOT).artifact(stage).manifest() or {})["files"]
        files = [file if isinstance(file, str) else file["name"] for file in files]
        assert set(files) <= {name.removeprefix(f"{stage}/") for name in names()}
    assert not [name for name in names() if "unfinished" in name or "training_state" in name]
    replies = [name for name in names() if "/replies/" in name]
    assert "candidates/replies/gathered-000001.json" in replies
    gathered = r"candidates/replies/(gathered-\d{6}\.json|\d{6}-\w{16}-\d{5}\.(jsonl\.zst|parquet))"
    assert [name for name in replies if not re.fullmatch(gathered, name)] == []
    assert [name for name in names() if re.fullmatch(r"dpo/checkpoint-\d+/model.safetensors", name)]
    assert {"recipe.yaml", "report.html", "report.json", "preferences/report.html"} <= set(names())
    steps = [json.loads(line) for line in read("run/dpo/metrics.jsonl").splitlines()]
    assert sum("loss" in row for row in steps) >= 1
    assert left_behind(here) == []
    assert [text for text in texts() if KEY in text or SECRET in text or str(here.place) in text] == []


def _samples() -> bool:
    return any("/replies/" in name for name in names())


def _judges() -> bool:
    return any(name.startswith("judgments/") for name in names())


def _trains() -> bool:
    return any("dpo/training_state/" in name and name.endswith("checkpoint_manager_snapshot.json") for name in names())


def _done(seen: str) -> list[str]:
    return [line.split()[0] for line in seen.splitlines() if line.endswith("already done")]


def _has_counts(stage: str) -> bool:
    return stage not in ("base", "sft", "dpo")


def test_one_engine_of_two_is_killed(tmp_path: Path, base_model: Path) -> None:
    root, prompts = tmp_path / "run", 60
    engines = (
        f"sampling.pool=[{{type: deployment, name: random, model: {base_model}, accelerator: cpu, dtype: float32, "
        "max_model_len: 128, max_in_flight: 16, min_replicas: 2, max_replicas: 2, engine: {max_num_seqs: 16}}]"
    )
    asked = f"prompts.train={embedded_world.rows('prompts', prompts)}"
    few = (*SMALL, f"model.path={base_model}", engines, asked, "sampling.max_tokens=24")
    replies = root / "candidates" / "replies"

    def under_way() -> bool:
        return sum(len(file.read_bytes().splitlines()) for file in replies.glob("*.jsonl")) >= 40

    status, seen = kill_and_finish("candidates", root, *few, when=under_way, victim="EngineCore")
    assert status == 0, seen
    rows = pq.read_table(root / "candidates" / "data").to_pylist()
    assert len({row["prompt_id"] for row in rows}) == len(rows) == prompts
    assert all(row["error"] is None and len(row["completions"]) == 3 for row in rows)
    assert len({(row["prompt_id"], each["seed"]) for row in rows for each in row["completions"]}) == 3 * prompts


def test_a_second_run_skips_everything(whole: Path) -> None:
    seen = run_job("pipeline", whole, *SMALL)
    assert _done(seen) == list(STAGES)


def test_what_would_run_and_why(whole: Path) -> None:
    table = run_job("pipeline", whole, *SMALL, "preferences.rejected=lowest", options=("--dry-run",))
    after = table[table.index(f"in {whole}:") :]
    status = {line.split()[0]: line for line in after.splitlines()}
    assert status["judgments"].endswith("done")
    assert status["preferences"].endswith("stale (preferences.rejected)")
    assert status["dpo"].endswith("stale (input reference_logps, input tokenized)")


@pytest.mark.parametrize(
    ("options", "override", "said"),
    [
        (("--from", "dpo"), "run.seed=5", "--from dpo: base is stale (seed); start there, or leave --from out"),
        (
            ("--from", "judgments"),
            f"preferences.train={embedded_world.rows('preferences', 8)}",
            "--from judgments: this recipe has no such stage on its way; it has base, dialogues, ",
        ),
        (
            ("--until", "judgments"),
            "judging.judge.function=nowhere:judge",
            "judging.judge.function=nowhere:judge: No module named",
        ),
        (
            ("--until", "candidates"),
            "sampling.pool=[{type: deployment, name: a, model: /nowhere}]",
            "/nowhere is not a folder",
        ),
        (
            ("--until", "candidates"),
            "sampling.workers=9",
            "for sampling there is no room: this machine has 4 CPU",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    whole: Path, tmp_path: Path, options: tuple[str, ...], override: str, said: str
) -> None:
    root = whole if options[0] == "--from" else tmp_path / "run"
    seen = run_job("pipeline", root, *SMALL, override, options=options, expect=2)
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in seen


def test_a_finished_run_goes_on_with_a_second_round(whole: Path, tmp_path: Path) -> None:
    """The newest model answers; the first round's model is the start, the supervised one the reference. Killed while it
    trains, and nothing of the first round is made again."""
    root, begun = copy_run(whole, tmp_path / "run"), time.time()
    more = (*SMALL, "rounds=2", "each_round.reference=first", "each_round.replay=0.5")
    until = ("--until", "round_2/dpo")

    def trains() -> bool:
        return any((root / "round_2" / "dpo").glob("training_state/*/checkpoint_manager_snapshot.json"))

    status, _ = kill_and_finish("pipeline", root, *more, when=trains, options=until)
    assert status == -signal.SIGKILL
    seen = run_job("pipeline", root, *more, options=until)
    made = ("candidates", "judgments", "preferences", "replayed_preferences", "tokenized", "reference_logps")
    assert _done(seen) == [*STAGES[:-1], *(f"round_2/{stage}" for stage in made)]
    assert re.search(r"^round_2/dpo +resuming$", seen, re.MULTILINE)
    assert [stage for stage in STAGES if (root / stage / "manifest.json").stat().st_mtime > begun] == []

    found = {stage: manifest(root, f"round_2/{stage}") for stage in (*made, "dpo")}
    first = {stage: manifest(root, stage) for stage in ("sft", "dpo")}
    assert found["candidates"]["inputs"]["dpo weights"] == first["dpo"]["weights"]
    assert found["dpo"]["inputs"]["dpo weights"] == first["dpo"]["weights"]
    assert found["reference_logps"]["inputs"]["sft weights"] == first["sft"]["weights"]
    counts = found["replayed_preferences"]["counts"]
    assert counts["in"] == found["preferences"]["counts"]["out"] + manifest(root, "preferences")["counts"]["out"]
    assert found["preferences"]["counts"]["out"] < counts["out"] < counts["in"]
    steps = [row["step"] for row in metrics(root, "round_2/dpo")]
    assert steps == sorted({*steps})
    served = checkpoint_of_run(str(root)).path
    assert served.startswith(str(root / "round_2" / "dpo"))


def test_the_best_answers_of_a_finished_run_are_learnt(whole: Path, tmp_path: Path) -> None:
    """Rejection sampling asks and judges nothing again."""
    root = copy_run(whole, tmp_path / "run")
    answers = "{pass_score: 5, min_score: 2, max_dropped: 0.9}"
    section = f"{{answers: {answers}, max_length: 64, global_batch: 8, max_steps: 2}}"
    quick = "rejection_sampling.training={workers: 1, logging_steps: 1}"
    given = (*SMALL, f"rejection_sampling={section}", quick)
    seen = run_job("rejection_sampling", root, *given)
    assert _done(seen) == list(STAGES[: STAGES.index("preferences")])

    learnt = {row["source"]: row for row in pq.read_table(root / "best_answers" / "data").to_pylist()}
    best = {}
    for row in pq.read_table(root / "judgments" / "data").to_pylist():
        ended = [each for each in row["completions"] if each["finish_reason"] == "stop" and each["overall_score"]]
        top = max((each["overall_score"] for each in ended), default=0)
        if top >= 2:
            best[row["prompt_id"]] = {each["content"] for each in ended if each["overall_score"] == top}
    assert learnt.keys() == best.keys()
    assert all(row["messages"][-1]["content"] in best[prompt_id] for prompt_id, row in learnt.items())
    gain = manifest(root, "best_answers")["gain"]
    assert [each["n"] for each in gain] == list(range(1, len(gain) + 1))
    assert gain[0]["prompts"] >= len(learnt)
    assert "What more answers to a prompt buy" in (root / "report.html").read_text()
    assert len(metrics(root, "rejection_sampling")) == 2
