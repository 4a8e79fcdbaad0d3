"""One driver at a time: who holds a run, who may take it, and what a driver that lost it can still do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline import lease
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.register import Register, Version

SHORT = 0.5  # seconds after which a silent holder may be replaced


@pytest.fixture(params=["disk", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else request.getfixturevalue("bucket")


def hold(root: str, **options: Any) -> Any:
    lines = options.pop("lines", [])
    return lease.held(Run(root), SHORT, say=lines.append, **options)


def held_by(root: str) -> dict[str, Any]:
    found = Register(root, lease.FOLDER).read()
    assert found is not None
    return found.value


def silent_holder(root: str, seconds: float = SHORT) -> Version:
    """A lease of a process on another machine that does not renew it."""
    value = {**silent_value(), "seconds": seconds, "epoch": 7}
    taken = Register(root, lease.FOLDER).replace(None, value)
    assert taken is not None
    return taken


def test_each_holder_has_a_higher_epoch(root: str) -> None:
    for epoch in (1, 2, 3):
        with hold(root) as mine:
            assert mine.epoch == epoch
            assert not held_by(root)["released"]
        assert held_by(root)["released"]


def test_a_holder_at_work_is_named_and_left_alone(root: str) -> None:
    with hold(root) as first:
        for take_over in (False, True):
            with (
                pytest.raises(UserError, match=r"is held by `.+` \(process \d+ of .* since .*\), which is at work"),
                hold(root, take_over=take_over),
            ):
                raise AssertionError
        first.check()
    assert held_by(root)["epoch"] == 1


def test_a_silent_holder_is_replaced_only_if_the_user_says_so(root: str) -> None:
    silent_holder(root)
    started = time.monotonic()
    with (
        pytest.raises(UserError, match=r"`python jobs/dpo.py` \(process 12 of ray on head-1.*silent.*--take-over"),
        hold(root),
    ):
        raise AssertionError
    assert time.monotonic() - started < 20
    lines: list[str] = []
    with hold(root, take_over=True, lines=lines) as mine:
        assert mine.epoch == 8
    assert lines[0].startswith("waiting 0.5 s for a sign of life of `python jobs/dpo.py`")


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_holder_that_was_replaced_is_interrupted_and_says_by_whom(tmp_path: Path, handler: Any) -> None:
    """Also where a shell started it in the background, with the signal of Ctrl-C ignored."""
    root = str(tmp_path)
    before = signal.signal(signal.SIGINT, handler)

    def take_it_away() -> None:
        register = Register(root, lease.FOLDER)
        while register.replace(register.read(), {**silent_value(), "epoch": 2}) is None:
            continue
        time.sleep(30)  # the thread that renews the lease ends this with the signal of Ctrl-C

    with (
        pytest.raises(UserError, match=r"was taken over by `python jobs/dpo.py` \(process 12 of ray on head-1"),
        hold(root),
    ):
        take_it_away()
    signal.signal(signal.SIGINT, before)
    assert held_by(root)["epoch"] == 2


def silent_value() -> dict[str, Any]:
    return {
        "token": "another", "released": False, "seconds": SHORT, "command": "python jobs/dpo.py", "user": "ray",
        "host": "head-1", "pid": 12, "process": None, "since": "2026-11-27 06:00:00 UTC",
    }  # fmt: skip


def test_a_lost_answer_to_a_renewal_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has the renewal, and the holder thinks that it failed."""
    replace = Register.replace

    def fail_after(self: Register, version: Version | None, value: dict[str, Any]) -> Version | None:
        replace(self, version, value)
        raise OSError("timed out")

    with hold(str(tmp_path)) as mine:
        monkeypatch.setattr(Register, "replace", fail_after)
        with pytest.raises(OSError, match="timed out"):
            mine.check()
        monkeypatch.setattr(Register, "replace", replace)
        mine.check()


def test_a_store_that_does_not_answer_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no route")

    with hold(str(tmp_path)) as mine:
        with monkeypatch.context() as patched:
            patched.setattr(Register, "replace", fail)
            deadline = time.monotonic() + 10
            while "cannot be renewed: no route" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.02)
        mine.check()
    assert "cannot be renewed: no route" in caplog.text


def test_a_killed_driver_of_this_machine_is_known_to_be_gone(tmp_path: Path) -> None:
    code = (
        "import os, signal; from zephyr_ray.pipeline import lease; from zephyr_ray.pipeline.artifacts import Run\n"
        f"with lease.held(Run({str(tmp_path)!r}), 1000, say=print): os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not held_by(str(tmp_path))["released"]
    with hold(str(tmp_path)) as mine:
        assert mine.epoch == 2


def test_of_several_that_start_at_once_one_holds(tmp_path: Path) -> None:
    runs, held, refused = 4, [], []
    barrier = threading.Barrier(runs)

    def start() -> None:
        barrier.wait()
        try:
            with hold(str(tmp_path)) as mine:
                held.append(mine.epoch)
                time.sleep(SHORT)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (held, len(refused)) == ([1], runs - 1)


@pytest.mark.parametrize("wrong", [{}, {"epoch": "1", "seconds": 1, "released": True, "token": "x"}])
def test_a_lease_that_is_none_is_named_and_nothing_is_touched(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "000000000001.json").write_text(json.dumps(wrong))
    with (
        pytest.raises(UserError, match=r"/lease is no lease of a run \(epoch.* missing or of a wrong type\)"),
        hold(str(tmp_path)),
    ):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["lease"]


def test_epochs_go_on_where_the_lease_was_deleted(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    run.epoch = 41
    run.artifact("dpo").begin("f")
    with hold(str(tmp_path)) as mine:
        assert mine.epoch == 42


def test_without_a_lease_a_run_gets_the_next_epoch(root: str) -> None:
    with hold(root):
        other = Run(root)
        lease.without(other)
        assert other.epoch == 2
    assert os.getpid() == held_by(root)["pid"]
