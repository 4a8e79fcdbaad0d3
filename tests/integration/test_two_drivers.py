"""Two commands on one run, on a disk and in a bucket: the second ends at once, or takes over from a silent one."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.integration.bucket import Machine, settings
from tests.s3_server import wait
from zephyr_ray.pipeline.artifacts import Run

pytestmark = pytest.mark.timeout(600)

ROWS = 40


def recipe(root: str, rows: int = ROWS, lease_s: float = 3) -> list[str]:
    source = f"{{type: function, function: tests.integration.slow_rows:preferences, options: {{count: {rows}}}}}"
    return settings(root, f"preferences.train={source}", f"run.lease_s={lease_s}")


def has_begun(root: str) -> bool:
    return Run(root).artifact("preferences").unfinished() is not None


@pytest.mark.parametrize(("where", "second_rows"), [("disk", ROWS), ("bucket", 24)])
def test_a_second_driver_waits_its_turn_and_the_first_harms_nothing_after_it(
    here: Machine, where: str, second_rows: int
) -> None:
    """With the same recipe on a disk, with another one in a bucket."""
    root = str(here.place / "two-drivers") if where == "disk" else "s3://bucket/two-drivers"
    log = here.place / f"first-{where}.log"
    first = here.start("jobs/preferences.py", *recipe(root), log=log)
    try:
        wait(lambda: has_begun(root), first, log, 120)
        assert re.search(
            r"is held by `.*preferences\.py.*` \(process \d+ of .*, since .* UTC\), which is at work",
            refused(here, root),
        )
        first.send_signal(signal.SIGSTOP)
        assert re.search(r"which has been silent for .*--take-over", refused(here, root))
        here.run("jobs/preferences.py", *recipe(root, second_rows), "--take-over", timeout=300)
        before = content(root)
        first.send_signal(signal.SIGCONT)
        assert first.wait(120) == 2, log.read_text()
    finally:
        first.kill()
    assert re.search(r"error: .*(was taken over by|is made by another command now)", log.read_text())
    assert content(root) == before
    artifact = Run(root).artifact("preferences")
    manifest = artifact.manifest()
    assert manifest is not None
    assert (manifest["epoch"], manifest["counts"]["out"], artifact.table().num_rows) == (2, second_rows, second_rows)


def refused(machine: Machine, root: str) -> str:
    """What a second command says, which ends within 20 s of its start and touches nothing."""
    before, started = content(root), time.monotonic()
    seen = machine.run("jobs/preferences.py", *recipe(root), expect=2, timeout=60)
    assert time.monotonic() - started < 20 + 10  # of them up to ten to import what it needs, on a busy machine
    assert content(root) == before
    return seen


def content(root: str) -> dict[str, bytes]:
    """What the manifest that counts names, and the manifest."""
    artifact = Run(root).artifact("preferences")
    manifest = artifact.manifest() or {}
    found = {"manifest": repr(manifest).encode()}
    for file in manifest.get("files", ()):
        with artifact.run.filesystem.open_input_stream(f"{artifact.path}/{file['name']}") as stream:
            found[file["name"]] = stream.read()
    return found


def test_what_is_finished_is_not_made_anew_by_a_forgotten_flag(here: Machine) -> None:
    root = str(here.place / "finished")
    here.run("jobs/preferences.py", *recipe(root, 4), timeout=300)
    before = everything(Path(root))
    seen = here.run("jobs/preferences.py", *recipe(root, 5), expect=2)
    (line,) = [line for line in seen.splitlines() if line.startswith("error: ")]
    changed = "changed: preferences.train.options.count"
    assert re.search(
        rf"this would replace preferences \(finished; 4 rows, .* hours; {changed}\); nothing was touched", line
    )
    assert everything(Path(root)) == before
    shown = here.run("jobs/preferences.py", *recipe(root, 5), "--dry-run")
    assert re.search(rf"^would replace preferences \(finished; 4 rows, .*{changed}\)", shown, re.MULTILINE)
    here.run("jobs/preferences.py", *recipe(root, 5), "--overwrite", "preferences", timeout=300)
    assert Run(root).artifact("preferences").table().num_rows == 5
    (old,) = Path(root).glob("preferences.replaced-*")
    assert Run(root).artifact(old.name).table().num_rows == 4
    assert "already done" in here.run("jobs/preferences.py", *recipe(root, 5), "--overwrite", "preferences")


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
