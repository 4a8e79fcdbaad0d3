"""A value that several processes replace: of two that replace the same version one wins."""

from __future__ import annotations

import threading
from pathlib import Path

import obstore
import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import register
from zephyr_ray.pipeline.register import Register


@pytest.fixture(params=["disk", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("bucket") + "/register"


def test_versions_follow_each_other_and_old_ones_go(root: str) -> None:
    one = Register(root, "lease")
    assert one.read() is None
    first = one.replace(None, {"epoch": 1})
    assert first is not None
    second = one.replace(first, {"epoch": 2})
    assert second is not None
    assert (second.number, second.value["epoch"]) == (2, 2)
    found = Register(root, "lease").read()
    assert found == second
    assert one.replace(first, {"epoch": 3}) is None
    assert one.replace(None, {"epoch": 3}) is None
    assert one.read() == second


def test_a_version_that_was_deleted_and_is_created_again_does_not_win(root: str) -> None:
    """A process that was paused before its write creates a file that others have replaced and deleted meanwhile."""
    paused, others = Register(root, "lease"), Register(root, "lease")
    old = others.replace(None, {"by": "others"})
    now = others.replace(old, {"by": "others"})
    now = others.replace(now, {"by": "others"})
    assert now is not None
    assert now.number == 3
    assert paused.replace(old, {"by": "paused"}) is None
    assert paused.read() == now


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    start = Register(str(tmp_path), "lease").replace(None, {})
    barrier, won = threading.Barrier(8), []

    def race(name: int) -> None:
        mine = Register(str(tmp_path), "lease")
        barrier.wait()
        won.extend([name] if mine.replace(start, {"by": name}) else [])

    for _ in range(25):
        won.clear()
        threads = [threading.Thread(target=race, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = Register(str(tmp_path), "lease").read()
        assert found is not None
        assert won == [found.value["by"]]
        start = found


def test_a_write_that_is_retried_finds_its_own_file(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Register(root, "lease")
    write = register.put_new

    def answer_is_lost(*args: object) -> bool:
        write(*args)  # type: ignore[arg-type]
        return write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(register, "put_new", answer_is_lost)
    assert one.replace(None, {"epoch": 1}) == one.read()


@pytest.mark.parametrize("content", [b"not JSON", b"[1]", b"\xff"])
def test_a_file_that_is_no_version_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "000000000004.json").write_bytes(content)
    with pytest.raises(UserError, match=r"lease/000000000004\.json is not a JSON object; .*delete it"):
        Register(str(tmp_path), "lease").read()


def test_a_store_without_conditional_writes_is_named(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register.check_conditional(root)

    def overwrites(store: object, path: str, content: bytes) -> bool:
        obstore.put(store, path, content)  # type: ignore[arg-type]
        return True

    monkeypatch.setattr(register, "put_new", overwrites)
    with pytest.raises(UserError, match=r"has no conditional writes \(If-None-Match\).*--no-lease"):
        register.check_conditional(root)
    assert not list(Path(root).iterdir()) if "://" not in root else True
