"""Complete or absent; the same content is the same id."""

import contextlib
import json
import posixpath
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import content_id, fingerprint, fingerprint_files
from zephyr_ray.pipeline.status import status_of
from zephyr_ray.storage import write_bytes


def test_an_artifact_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("tokenized")
    assert artifact.begin("abc") is False
    (tmp_path / "tokenized" / "data").mkdir()
    (tmp_path / "tokenized" / "data" / "0.parquet").write_text("half")
    assert artifact.manifest() is None
    with pytest.raises(
        UserError,
        match=r"tokenized is not finished; make it first: zephyr-ray run RECIPE --until tokenized",
    ):
        artifact.files()
    artifact.finish({"fingerprint": "abc", "files": ["data/0.parquet"]})
    assert artifact.is_finished("abc")
    assert artifact.files() == [str(tmp_path / "tokenized" / "data" / "0.parquet")]
    assert not (tmp_path / "tokenized" / "unfinished.json").exists()


def test_unfinished_work_resumes_only_with_the_same_fingerprint(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("dpo")
    artifact.begin("one")
    (tmp_path / "dpo" / "state").write_text("step 7")
    assert artifact.begin("one") is True
    assert (tmp_path / "dpo" / "state").read_text() == "step 7"
    assert artifact.begin("two") is False
    assert not (tmp_path / "dpo" / "state").exists()


def test_a_finished_artifact_is_not_begun_anew(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("dpo")
    artifact.begin("one")
    artifact.finish({"fingerprint": "one", "files": []})
    with pytest.raises(ValueError, match=r"dpo is finished"):
        artifact.begin("two")
    assert artifact.is_finished("one")


def test_a_kill_amid_the_clearing_leaves_no_folder_that_is_nobodys(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("dpo")
    artifact.begin("one")
    (tmp_path / "dpo" / "checkpoint").mkdir()

    class KilledError(Exception):
        pass

    class KilledAtAFolder:
        def __getattr__(self, name: str) -> Any:
            return getattr(pafs.LocalFileSystem(), name)

        def delete_dir(self, path: str) -> None:
            raise KilledError

    artifact.run.filesystem = KilledAtAFolder()
    with pytest.raises(KilledError):
        artifact.begin("two")
    after = Run(str(tmp_path)).artifact("dpo")
    assert after.manifest() is None
    assert after.begin("two") is False
    assert [path.name for path in (tmp_path / "dpo").iterdir()] == ["unfinished.json"]


def test_a_folder_that_no_stage_made_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a stage of a run"):
        Run(str(tmp_path)).artifact("dpo").begin("one")
    assert (tmp_path / "dpo" / "thesis.txt").read_text() == "years of work"


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"run\.root=.*file/root cannot be written: .*choose another"):
        Run(str(tmp_path / "file" / "root")).check_writable()


def test_an_unknown_kind_of_root_is_named() -> None:
    with pytest.raises(UserError, match=r"^nowhere://bucket: .*give a local path"):
        Run("nowhere://bucket")


def test_ids_depend_on_content_alone() -> None:
    assert content_id([{"role": "user", "content": "a"}]) == content_id([{"content": "a", "role": "user"}])
    assert content_id("a", "b") != content_id("b", "a") != content_id("ab", "")


def test_a_fingerprint_changes_with_the_stage_the_recipe_and_the_inputs() -> None:
    same = fingerprint("dpo", {"beta": 0.1}, {"sft": "1"})
    assert same == fingerprint("dpo", {"beta": 0.1}, {"sft": "1"})
    others = [
        ("sft", {"beta": 0.1}, {"sft": "1"}),
        ("dpo", {"beta": 0.2}, {"sft": "1"}),
        ("dpo", {"beta": 0.1}, {"sft": "2"}),
    ]
    assert same not in [fingerprint(*other) for other in others]


def test_a_files_place_does_not_matter_but_its_content_does(tmp_path: Path) -> None:
    for folder, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(text)
    a, b, c = (fingerprint_files([str(tmp_path / folder)]) for folder in "abc")
    assert a == b != c


def test_a_worker_writes_only_where_it_sees_the_stage_that_was_begun(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("dpo")
    artifact.check_current()  # nobody has begun it: there is nothing to see
    artifact.begin("one")
    artifact.check_current()
    for found in ('{"fingerprint": "two"}', None):
        (tmp_path / "dpo" / "unfinished.json").write_text(found) if found else (
            tmp_path / "dpo" / "unfinished.json"
        ).unlink()
        with pytest.raises(UserError, match=rf"^{tmp_path}/dpo is not there on .*; mount a volume"):
            artifact.check_current()


# --- drivers with a lease


@pytest.fixture(params=["disk", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("bucket")


def driver(root: str, epoch: int) -> Artifact:
    run = Run(root)
    run.epoch = epoch
    return run.artifact("candidates")


def put(artifact: Artifact, name: str) -> str:
    """Writes a file of this driver's; returns its name."""
    path = artifact.new_name(name)
    artifact.run.filesystem.create_dir(posixpath.dirname(posixpath.join(artifact.path, path)), recursive=True)
    write_bytes(artifact.run.filesystem, posixpath.join(artifact.path, path), b"rows")
    return path


def names(artifact: Artifact, folder: str = "") -> list[str]:
    return sorted(artifact.names(folder))


def test_a_driver_adopts_the_files_of_those_before_it_and_no_later_ones(root: str) -> None:
    first, second, third = (driver(root, epoch) for epoch in (1, 2, 3))
    assert first.begin("f") is False
    one = put(first, "data/000000-000.parquet")
    assert second.begin("f") is True
    assert second.adopted == (one,)
    two = put(second, "data/000000-000.parquet")
    put(first, "data/000001-000.parquet")  # it was paused, and does not know that there is another one
    assert third.begin("f") is True
    assert third.adopted == (one, two)
    assert third.files_that_count() == [one, two]


def test_what_a_driver_writes_after_it_was_taken_over_does_not_count(root: str) -> None:
    paused, successor = driver(root, 1), driver(root, 2)
    paused.begin("f")
    late = put(paused, "data/000000-000.parquet")
    successor.begin("another")
    with pytest.raises(UserError, match="is made by another command now"):
        paused.check_current()
    with pytest.raises(UserError, match="is made by another command now"):
        paused.finish({"fingerprint": "f", "files": [late]})
    assert successor.manifest() is None
    mine = put(successor, "data/000000-000.parquet")
    successor.finish({"fingerprint": "another", "files": [{"name": mine, "rows": 4}]})
    with pytest.raises(UserError, match="is made by another command now"):
        paused.begin("f") if paused.manifest() is None else paused.check_epoch()
    for reader in (paused, successor, driver(root, 0)):
        assert reader.is_finished("another")
        assert [entry.name for entry in reader.entries()] == [mine]
        assert reader.rows() == 4


def test_a_manifest_that_arrives_after_the_successor_began_does_not_count(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the driver is paused between its last look and its manifest."""
    paused, successor = driver(root, 1), driver(root, 2)
    paused.begin("f")
    with monkeypatch.context() as patched:
        look = Artifact.check_epoch
        looks = iter([lambda: successor.begin("f"), lambda: look(paused)])
        patched.setattr(Artifact, "check_epoch", lambda self: next(looks)())
        with pytest.raises(UserError, match="is made by another command now"):
            paused.finish({"fingerprint": "f", "files": []})
    assert "manifest-000001.json" in names(paused)
    assert [each.manifest() for each in (paused, successor)] == [None, None]
    assert successor.unfinished() is not None
    successor.finish({"fingerprint": "f", "files": []})
    assert successor.is_finished("f")
    assert "manifest-000001.json" not in names(successor)


def test_a_finished_artifact_is_tidy(root: str) -> None:
    earlier, artifact = driver(root, 1), driver(root, 2)
    earlier.begin("another")
    put(earlier, "data/000000-000.parquet")
    put(earlier, "replies/paid.jsonl")
    put(earlier, "training_state/ray")
    artifact.begin("f")
    kept, gone = put(artifact, "data/000000-000.parquet"), put(artifact, "dropped/000000-000.parquet")
    later = put(driver(root, 3), "data/000000-000.parquet")  # a successor's is never touched
    artifact.finish({"fingerprint": "f", "files": [{"name": kept, "rows": 1}], "temporary": ["training_state"]})
    assert names(artifact, "data") == sorted(posixpath.basename(name) for name in (kept, later))
    assert posixpath.basename(gone) not in names(artifact, "dropped")
    assert names(artifact, "replies") == ["e000001-paid.jsonl"]
    links = ["manifest.json"] if artifact.run.is_local else []
    left = [name for name in names(artifact) if name.endswith(".json") or artifact.has_files(name)]
    assert left == sorted(["data", "replies", "manifest-000002.json", *links])


@pytest.mark.parametrize("harm", ["missing", "short", "none"])
def test_files_that_are_missing_or_short_are_named(root: str, harm: str) -> None:
    artifact = driver(root, 1)
    artifact.begin("f")
    one, two = (put(artifact, f"data/{number:06d}-000.parquet") for number in range(2))
    artifact.write_text("report.html", "a report")
    artifact.finish({"fingerprint": "f", "files": [{"name": name, "rows": 1} for name in (one, two, "report.html")]})
    path = posixpath.join(artifact.path, two)
    if harm == "none":
        artifact.check_files()
        return
    artifact.run.filesystem.delete_file(path)
    if harm == "short":
        write_bytes(artifact.run.filesystem, path, b"row")
    with pytest.raises(UserError, match=rf"is damaged: .*\(1, the first is {two}\); put them back, or delete"):
        artifact.check_files()


@pytest.mark.parametrize("killed_at", range(8))
def test_a_kill_at_any_write_of_the_commit_leaves_a_run_that_all_readers_see_alike(
    tmp_path: Path, killed_at: int
) -> None:
    earlier, artifact = driver(str(tmp_path), 1), driver(str(tmp_path), 2)
    earlier.begin("f")
    adopted = put(earlier, "data/000000-000.parquet")
    artifact.begin("f")
    artifact.run.filesystem = KilledAfter(killed_at)
    manifest = {"fingerprint": "f", "config": {}, "inputs": {}, "files": [{"name": adopted, "rows": 1}]}
    with contextlib.suppress(KilledError):
        artifact.finish(manifest)
    again = driver(str(tmp_path), 3)
    status = status_of(again, "f", {}, {})
    finished = again.manifest() is not None
    assert str(status) == ("done" if finished else "unfinished")
    assert again.is_finished("f") == finished
    assert (again.unfinished() is None) == finished
    if finished:
        again.tidy()
    else:
        again.begin("f")
        again.finish(manifest)
    assert [entry.name for entry in again.entries()] == [adopted]
    assert Path(again.files()[0]).read_bytes() == b"rows"
    assert json.loads((tmp_path / "candidates" / "manifest.json").read_text())["fingerprint"] == "f"


class KilledError(Exception):
    pass


class KilledAfter:
    """A filesystem on which so many changes come to their end."""

    def __init__(self, changes: int):
        self.left = changes

    def __getattr__(self, name: str) -> Any:
        plain = getattr(pafs.LocalFileSystem(), name)
        if name not in ("move", "delete_file", "delete_dir", "create_dir", "open_output_stream"):
            return plain

        def counted(*arguments: Any, **options: Any) -> Any:
            if not self.left:
                raise KilledError
            self.left -= 1
            return plain(*arguments, **options)

        return counted
