"""Complete or absent; the same content is the same id."""

from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run, content_id, fingerprint, fingerprint_files


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


def test_a_changed_artifact_is_made_anew(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("dpo")
    artifact.begin("one")
    artifact.finish({"fingerprint": "one", "files": []})
    assert artifact.begin("two") is False
    assert artifact.manifest() is None


def test_a_kill_amid_the_clearing_leaves_neither_a_manifest_nor_a_folder_that_is_nobodys(tmp_path: Path) -> None:
    artifact = Run(str(tmp_path)).artifact("dpo")
    artifact.begin("one")
    (tmp_path / "dpo" / "checkpoint").mkdir()
    artifact.finish({"fingerprint": "one", "files": []})

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
    artifact.check_visible()  # nobody has begun it: there is nothing to see
    artifact.begin("one")
    artifact.check_visible()
    for found in ('{"fingerprint": "two"}', None):
        (tmp_path / "dpo" / "unfinished.json").write_text(found) if found else (
            tmp_path / "dpo" / "unfinished.json"
        ).unlink()
        with pytest.raises(UserError, match=rf"^{tmp_path}/dpo is not there on .*; mount a volume"):
            artifact.check_visible()
