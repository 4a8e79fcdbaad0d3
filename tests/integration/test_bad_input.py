"""Wrong input: one clear line that names the thing and the fix, exit status 2, nothing half-written."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.jobs import REPO, copy_run, manifest, run_job


def refused(root: Path, *overrides: str, job: str = "dpo") -> str:
    """What the job says of input that it refuses before it starts anything: one line, no traceback, nothing written."""
    seen = run_job(job, root, *overrides, expect=2)
    assert "Traceback" not in seen
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    assert not list(root.rglob("*.parquet"))
    return line


def test_help_shows_the_command_and_imports_nothing_heavy() -> None:
    seen = subprocess.run(
        [sys.executable, "jobs/dpo.py", "--help"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert "python jobs/dpo.py" in seen.stdout
    heavy = "import sys, zephyr_ray.cli.jobs; print([m for m in ('torch', 'ray', 'pyarrow') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", heavy], cwd=REPO, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("recipe", sorted(str(p.relative_to(REPO)) for p in (REPO / "recipes").rglob("*.yaml")))
def test_every_recipe_says_how_it_is_run(tmp_path: Path, recipe: str) -> None:
    first = (REPO / recipe).read_text().splitlines()[0]
    assert first.startswith("# run: python ")
    assert recipe in first
    command = [sys.executable, *shlex.split(first.removeprefix("# run: python "))]
    command += ["--set", f"run.root={tmp_path / 'run'}", "--dry-run"]
    seen = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert "reference_logps" in seen
    assert not (tmp_path / "run").exists()


def test_a_job_without_a_recipe_is_the_embedded_world_and_says_so() -> None:
    seen = subprocess.run(
        [sys.executable, "jobs/dpo.py", "--dry-run"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert seen.stdout.startswith("no --recipe: this is the embedded world, recipes/tiny.yaml, in runs/tiny\n")
    assert "held_out " in seen.stdout
    until = [sys.executable, "jobs/pipeline.py", "--until", "dpo", "--dry-run"]
    stages = subprocess.run(until, cwd=REPO, capture_output=True, text=True, check=True).stdout.partition("status\n")[2]
    assert [line.split()[0] for line in stages.splitlines()][-2:] == ["reference_logps", "dpo"]  # no evaluation
    options = [sys.executable, "jobs/dpo.py", "--set", "dpo.beta=1"]
    refused = subprocess.run(options, cwd=REPO, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--set without --recipe" in refused.stderr


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (("preferences.train=missing.jsonl",), ("missing.jsonl",)),
        (("dpo.betta=1",), ("dpo.betta", "did you mean beta")),
        (("dpo.beta=strong",), ("dpo.beta", "'strong'")),
        (("dop.beta=1",), ("dop", "did you mean dpo")),
        (("dpo.training.workers=33",), ("workers=33", "global_batch")),
        (("model.path=/nowhere/model",), ("model.path=/nowhere/model", "not a folder")),
        (("chat.template=missing.jinja",), ("chat.template=missing.jinja",)),
        (("dpo.training.trl.wieght_decay=0.1",), ("wieght_decay", "did you mean weight_decay")),
        (("dpo.training.trl.max_steps=1",), ("dpo.training.trl.max_steps", "set dpo.max_steps")),
        (("dpo.training.gpus_per_worker=1",), ("dpo.training: 2 x 1 CPU + 1 GPU", "this machine has 4 CPU, 0 GPU")),
    ],
)
def test_refused(tmp_path: Path, overrides: tuple[str, ...], names: tuple[str, ...]) -> None:
    line = refused(tmp_path / "run", *overrides)
    assert all(name in line for name in names), line


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    seen = run_job("dpo", tmp_path / "run", recipes=("nowhere.yaml",), expect=2)
    assert "error: recipe nowhere.yaml" in seen


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("tokenizer*", "holds no tokenizer"),
        ("*.safetensors", "no .safetensors weights"),
        ("config.json", "no config.json"),
    ],
)
def test_an_incomplete_model_folder(tmp_path: Path, base_model: Path, without: str, says: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base_model, folder, ignore=shutil.ignore_patterns(without))
    line = refused(tmp_path / "run", f"model.path={folder}")
    assert str(folder) in line
    assert says in line


def test_a_root_that_cannot_be_written(tmp_path: Path, base_model: Path) -> None:
    (tmp_path / "file").write_text("")
    seen = run_job("dpo", tmp_path / "file" / "run", f"model.path={base_model}", expect=2)
    assert "cannot be written" in seen
    assert "--set run.root=" in seen


def test_a_half_broken_file_trains_on_its_good_rows(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    good = [{"prompt": f"Say {n}", "chosen": f"{n}", "rejected": f"Sure: {n}"} for n in range(40)]
    lines = [json.dumps(row) for row in good]
    lines[7:7] = ["{not json", json.dumps({"prompt": "a", "chosen": "b", "rejected": "b"}), json.dumps({"text": "?"})]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    root = tmp_path / "run"
    seen = run_job("preferences", root, *overrides, f"preferences.train={path}")
    assert "43 rows in = 40 kept + 3 dropped" in seen
    rows = pq.read_table(root / "preferences" / "dropped").to_pylist()
    assert {(row["source"].split("/")[-1], row["reason"]) for row in rows} == {
        ("pairs.jsonl:8", "undecodable_line"),
        ("pairs.jsonl:9", "identical_pair"),
        ("pairs.jsonl:10", "unknown_layout"),
    }
    assert manifest(root, "preferences")["counts"] == {
        "in": 43,
        "out": 40,
        "dropped": {"identical_pair": 1, "undecodable_line": 1, "unknown_layout": 1},
    }
    strict = run_job(
        "preferences",
        tmp_path / "strict",
        *overrides,
        f"preferences.train={path}",
        "preferences.max_dropped=0.01",
        expect=2,
    )
    assert "3 of 43 rows dropped" in strict
    assert not (tmp_path / "strict" / "preferences" / "manifest.json").exists()


def test_reference_logps_of_another_model_stop_the_job(
    prepared: Path, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    root = copy_run(prepared, tmp_path / "run")
    for path in (root / "reference_logps" / "data").glob("*.parquet"):
        table = pq.read_table(path)
        shifted = pa.array([value - 5.0 for value in table["ref_chosen_logps"].to_pylist()], pa.float32())
        pq.write_table(table.set_column(1, "ref_chosen_logps", shifted), path)
    named = manifest(root, "reference_logps")
    for file in named["files"]:
        file["bytes"] = (root / "reference_logps" / file["name"]).stat().st_size
    (root / "reference_logps" / "manifest.json").write_text(json.dumps(named))
    seen = run_job("dpo", root, *overrides, expect=2)
    assert "policy and reference are not the same model" in seen
    assert "dpo.step0_tolerance sets the bound" in seen
    assert not (root / "dpo" / "manifest.json").exists()
