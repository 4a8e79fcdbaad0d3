"""What lies at a URI is copied once to a machine; what a store says when it will not is said in plain words."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zephyr_ray import storage
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.model_source import ModelSource, external_model
from zephyr_ray.storage import local_copy, open_filesystem, refusal

KEY = "k" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path / "cache"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "adapter").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "adapter/adapter.safetensors"):
        (folder / name).write_text(name)
    return folder


def files(folder: str | Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_a_model_at_a_uri_is_copied_whole_or_without_its_weights(model: Path) -> None:
    source = ModelSource(model.as_uri(), None, "f")
    assert files(source.local()) == files(model)
    assert files(source.without_weights()) == ["config.json", "tokenizer.json"]
    assert pickle.loads(pickle.dumps(source)).local() == source.local() != source.without_weights()
    assert ModelSource(model.as_uri(), None, "another").local() != source.local()


def test_a_folder_or_hub_id_stands_for_itself_and_a_folder_that_is_not_there_is_named(model: Path) -> None:
    assert [ModelSource(path).local() for path in (str(model), "owner/name")] == [str(model), "owner/name"]
    with pytest.raises(UserError, match=r"^/nowhere is not there on .*; mount a volume .* or use s3://$"):
        ModelSource("/nowhere").local()


def test_many_ask_at_once_and_one_copies(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies, copy, together = [], storage._copy_folder, threading.Barrier(8)

    def slow(uri: str, target: str, weights: bool) -> None:
        copies.append(target)
        time.sleep(0.2)
        copy(uri, target, weights)

    def ask() -> str:
        together.wait()
        return local_copy(model.as_uri(), KEY)

    monkeypatch.setattr(storage, "_copy_folder", slow)
    with ThreadPoolExecutor(8) as pool:
        folders = {each.result() for each in [pool.submit(ask) for _ in range(8)]}
    assert len(folders) == len(copies) == 1
    assert files(folders.pop()) == files(model)


def test_a_copy_that_was_killed_is_made_anew(model: Path, cache: Path) -> None:
    partial = cache / "models" / f"{KEY}.partial"
    partial.mkdir(parents=True)
    (partial / "half").write_text("")
    (cache / "models" / f"{KEY}.lock").touch()
    assert files(local_copy(model.as_uri(), KEY)) == files(model)
    assert not partial.exists()


def test_what_is_not_there_leaves_nothing_in_the_cache(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"^file:///.*/gone is not there; was it deleted\?"):
        local_copy((tmp_path / "gone").as_uri(), KEY)
    assert [path.name for path in (cache / "models").iterdir()] == [f"{KEY}.lock"]


def test_a_model_from_outside_may_lie_at_a_uri(model: Path) -> None:
    before = external_model("model.path", model.as_uri(), None)
    assert external_model("model.path", model.as_uri(), None) == before
    (model / "model.safetensors").write_text("other weights")
    assert external_model("model.path", model.as_uri(), None) != before
    (model / "config.json").unlink()
    with pytest.raises(UserError, match=r"^model\.path=file:///.* holds no config\.json"):
        external_model("model.path", model.as_uri(), None)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3://KEY:hunter2@bucket/run", "s3://***@bucket/run: credentials do not belong in a URI"),
        ("s3://hunter2@bucket/run", "s3://***@bucket/run: credentials do not belong in a URI"),
        ("hdfs://me:hunter2@host/run", "hdfs://***@host/run: credentials do not belong in a URI"),
        ("s3://bucket/run?endpoint_override=h&secret=hunter2", "s3://bucket/run?...: a URI takes no options"),
        ("s3://bucket/run#hunter2", "s3://bucket/run?...: a URI takes no options"),
        ("s3://bucket/a b", "s3://bucket/a b: Cannot parse URI"),
        ("nowhere://bucket/run", "nowhere://bucket/run: Unrecognized filesystem type"),
    ],
)
def test_a_uri_is_a_place_and_nothing_else(uri: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        open_filesystem(uri)
    assert str(error.value).startswith(says)
    assert "hunter2" not in str(error.value)


ERRORS = {
    "When listing objects under key 'run/' in bucket 'b': AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: The "
    "specified bucket does not exist (Request ID: x)": "there is no bucket b; make it first",
    "Bucket 'b' not found. To create buckets, enable the allow_bucket_creation option.": "there is no bucket b;",
    "When getting information for key 'run' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: No "
    "response body.": "access is refused (ACCESS_DENIED); check the credentials in the environment (AWS_ACCESS_KEY_ID "
    "is not set) and what they may do in the bucket b",
    "When getting information for key 'run' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject operation: "
    "curlCode: 7, Could not connect to server; Details: Failed to connect to h:9": "the object store does not answer "
    "(Failed to connect to h:9); check AWS_ENDPOINT_URL and the network",
    "When x in bucket 'b': AWS Error UNKNOWN (HTTP status 301) during HeadBucket operation: m": "cannot be used: When",
}


@pytest.mark.parametrize(("error", "says"), ERRORS.items())
def test_what_a_store_says_in_plain_words(error: str, says: str) -> None:
    line = str(refusal("run.root=s3://b/run", OSError(error)))
    assert line.startswith("run.root=s3://b/run")
    assert says in line
    assert "\n" not in line
