"""API keys: how they are hashed, which header is let in, and which files are refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zephyr_ray.errors import UserError
from zephyr_ray.serving.keys import VARIABLE, Keys, hash_key, new_key, read

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_hash_is_sha_256() -> None:
    assert hash_key("abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (f"Bearer {KEY}", "alice"),
        (f"bearer  {KEY} ", "alice"),
        (f"Bearer {KEY}x", None),
        (f"Basic {KEY}", None),
        (KEY, None),
        (f"Bearer {hash_key(KEY)}", None),
        ("Bearer", None),
        ("", None),
        (None, None),
    ],
)
def test_a_header_names_its_key(header: str | None, name: str | None) -> None:
    assert Keys({hash_key(KEY): "alice"}).name_of(header) == name


@given(st.text())
def test_no_other_header_is_let_in(header: str) -> None:
    assert Keys({hash_key(new_key()): "alice"}).name_of(header) is None


def test_keys_of_the_environment_and_the_file_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f" {KEY},,{KEY[::-1]},")
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{hash_key('c' * 16)} carol\n{hash_key('d' * 16)}\n")
    known = read(str(file))
    assert known is not None
    assert len(known) == 4
    names = [known.name_of(f"Bearer {key}") for key in (KEY, KEY[::-1], "c" * 16, "d" * 16)]
    assert names == ["key-1", "key-2", "carol", "line-4"]


def test_no_key_at_all_is_none_and_not_an_empty_set() -> None:
    assert read(None) is None


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        ("short", None, "key 1 has under 16"),
        ("", None, f"{VARIABLE} holds no API key"),
        (None, "# nobody\n", "holds no API key"),
        (None, "abc alice\n", ":1 is not a SHA-256"),
        (None, f"{'G' * 64} alice\n", ":1 is not a SHA-256"),
        (None, None, "cannot be read"),
    ],
)
def test_what_gives_no_safe_key_is_a_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, text: str | None, says: str
) -> None:
    path: Path | None = None
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    else:
        path = tmp_path / "keys"
        if text is not None:
            path.write_text(text)
    with pytest.raises(UserError, match=says) as raised:
        read(str(path) if path else None)
    assert "short" not in str(raised.value)


def test_new_keys_differ_and_are_long() -> None:
    made = {new_key() for _ in range(50)}
    assert len(made) == 50
    assert min(map(len, made)) >= 46  # "zr-" and 256 bits in base64
