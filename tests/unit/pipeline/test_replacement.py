"""Nothing that is finished, or that models have worked for, is replaced without being named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.cluster.resources import Demand
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import move_aside, runner
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.replacement import replacements
from zephyr_ray.pipeline.runner import Consent
from zephyr_ray.pipeline.stage import Stage, identities
from zephyr_ray.storage import write_bytes


@pytest.fixture(params=["disk", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("bucket")


def pipeline(**beta: float) -> list[Stage]:
    """Cheap rows, and a training on them."""
    rows = Stage("tokenized", "rows", {"length": beta.get("length", 512)}, lambda context: {})
    demand = Demand("dpo", {"CPU": 1}, 1)
    config = {"beta": beta.get("beta", 0.1)}
    return [rows, Stage("dpo", "steps", config, lambda context: {}, inputs={"rows": rows}, resources=(demand,))]


def put(artifact: Artifact, name: str) -> None:
    folder = f"{artifact.path}/{name}".rpartition("/")[0]
    artifact.run.filesystem.create_dir(folder, recursive=True)
    write_bytes(artifact.run.filesystem, f"{artifact.path}/{name}", name.encode())


def make(
    root: str, epoch: int, stages: list[Stage], *, finish: bool = True, counts: Mapping[str, Any] | None = None
) -> Run:
    run = Run(root)
    run.epoch = epoch
    for stage, identity in identities(stages, run).items():
        artifact = run.artifact(stage.name)
        artifact.begin(identity.fingerprint, stage.config, identity.inputs)
        put(artifact, artifact.new_name("data/000000-000.parquet"))
        put(artifact, "replies/paid.jsonl")
        record = {"fingerprint": identity.fingerprint, "config": stage.config, "inputs": identity.inputs, "files": []}
        named = [{"name": artifact.new_name("data/000000-000.parquet"), "rows": 512}]
        if finish:
            artifact.finish({**record, "files": named, "seconds": 1800, **(counts or {})})
    return run


def everything(root: str) -> dict[str, bytes]:
    import pyarrow.fs as pafs

    run = Run(root)
    found = run.filesystem.get_file_info(pafs.FileSelector(run.path, recursive=True))
    files = [info.path for info in found if info.type == pafs.FileType.File]
    return {path: run.filesystem.open_input_stream(path).read() for path in files}


def test_a_finished_stage_is_not_replaced_unless_it_is_named(root: str) -> None:
    run = make(root, 1, pipeline(), counts={"counts": {"out": 512}, "asked": {"requests": 2048, "usd": 1.5}})
    before = everything(root)
    changed = runner.plan(run, pipeline(length=256))
    with pytest.raises(UserError) as refused:
        changed.check(Consent())
    said = "finished; 512 rows, 2,048 replies, 1.50 US dollars, 0.50 hours; changed: "
    assert f"tokenized ({said}length), dpo ({said}input rows); nothing was touched" in str(refused.value)
    assert "--overwrite tokenized --overwrite dpo" in str(refused.value)
    with pytest.raises(UserError, match=r"replace dpo .*add --overwrite dpo to"):
        changed.check(Consent(overwrite=("tokenized",)))
    changed.check(Consent(overwrite=("tokenized", "dpo")))
    with pytest.raises(UserError, match="--overwrite judgments: no such stage is made here"):
        changed.check(Consent(overwrite=("judgments",)))
    runner.plan(run, pipeline()).check(Consent())
    assert everything(root) == before


def test_a_stage_that_has_not_begun_may_change(root: str) -> None:
    run = make(root, 1, pipeline()[:1])
    runner.plan(run, pipeline(beta=0.5)).check(Consent())


@pytest.mark.parametrize(("work", "refused"), [("data/x.parquet", True), ("training_state/ray/x", True), (None, False)])
def test_unfinished_work_of_models_counts_as_much_and_of_rows_alone_does_not(
    root: str, work: str | None, refused: bool
) -> None:
    run = Run(root)
    for stage, identity in identities(pipeline(), run).items():
        artifact = run.artifact(stage.name)
        artifact.begin(identity.fingerprint, stage.config, identity.inputs)
        if work:
            put(artifact, work)
    changed = pipeline(length=256)
    found = replacements(run, changed, identities(changed, run))
    assert [each.stage.name for each in found] == (["dpo"] if refused else [])
    assert all("unfinished; begun 2" in str(each) for each in found)


def test_the_old_one_is_moved_with_all_that_it_has_but_the_replies(root: str) -> None:
    old = make(root, 1, pipeline()[:1]).artifact("tokenized")
    manifest = old.manifest()
    assert manifest is not None
    run = Run(root)
    run.epoch = 2
    moved_to = move_aside.move_aside(run.artifact("tokenized"))
    assert moved_to == f"{run.root}/tokenized.replaced-{manifest['fingerprint']}"
    moved = run.artifact(f"tokenized.replaced-{manifest['fingerprint']}")
    assert moved.manifest() == manifest
    with run.filesystem.open_input_stream(moved.files()[0]) as stream:
        assert stream.read().startswith(b"data/")
    left = run.artifact("tokenized")
    assert left.manifest() is None
    assert [name for name in left.names() if name != "data"] == ["replies", "unfinished-000002.json"]
    assert left.begin("new") is False
    left.finish({"fingerprint": "new", "files": []})
    again = Run(root)
    again.epoch = 3
    assert move_aside.move_aside(again.artifact("tokenized")) == f"{run.root}/tokenized.replaced-new"


def test_a_second_one_of_the_same_fingerprint_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for epoch, name in ((1, "dpo.replaced-f"), (3, "dpo.replaced-f-2")):
        run = Run(str(tmp_path))
        run.epoch = epoch
        run.artifact("dpo").begin("f")
        run.artifact("dpo").finish({"fingerprint": "f", "files": []})
        run.epoch = epoch + 1
        assert move_aside.move_aside(run.artifact("dpo")) == f"{tmp_path}/{name}"


@pytest.mark.parametrize("killed_at", range(6))
def test_a_kill_amid_the_move_loses_nothing_and_the_next_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    run = make(str(tmp_path), 1, pipeline()[:1])
    put(run.artifact("tokenized"), "report.html")
    before = sorted(everything(str(tmp_path)).values())
    run.epoch = 2
    moves = move_aside._move
    done = iter(range(100))

    class KilledError(Exception):
        pass

    def move(*arguments: Any) -> None:
        if next(done) == killed_at:
            raise KilledError
        moves(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(move_aside, "_move", move)
        try:
            move_aside.move_aside(run.artifact("tokenized"))
        except KilledError:
            assert run.artifact("tokenized").manifest() is None
    after = Run(str(tmp_path))
    after.epoch = 3
    move_aside.finish_move(after.artifact("tokenized"))
    kept = {path: text for path, text in everything(str(tmp_path)).items() if "unfinished-" not in path}
    assert sorted(kept.values()) == before
    (folder,) = (path.name for path in tmp_path.iterdir() if "replaced" in path.name)
    assert after.artifact(folder).manifest() is not None
    assert after.artifact("tokenized").begin("new") is False
