"""The command that makes an API key."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zephyr_ray.errors import UserError
from zephyr_ray.serving import keys
from zephyr_ray.serving.keys import add


def test_a_new_key_is_let_in_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    alice, bob = add(str(path), "alice"), add(str(path), " Bob B. ")
    known = keys.read(str(path))
    assert known is not None
    assert [known.name_of(f"Bearer {key}") for key in (alice, bob, alice + "x")] == ["alice", "Bob B.", None]
    text = path.read_text()
    assert alice not in text
    assert bob not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\u2028b", "\x1b[0m"])
def test_a_name_is_one_line_of_printable_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="printable"):
        add(str(tmp_path / "keys.txt"), name)
    assert not (tmp_path / "keys.txt").exists()


def test_another_kind_of_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a hash\n")
    with pytest.raises(UserError, match=r"notes\.txt:1"):
        add(str(path), "alice")
    assert path.read_text() == "not a hash\n"


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    folder = Path(__file__).parents[3]
    command = [sys.executable, "-m", "zephyr_ray", "keys", str(tmp_path / "no/keys.txt"), "alice"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(folder)}, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
