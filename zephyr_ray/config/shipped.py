"""The recipes that ship with the package, by name: `zephyr-7b-beta/paper` is recipes/zephyr-7b-beta/paper.yaml."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "recipes"


def names() -> list[str]:
    """All of them, sorted."""
    return sorted(str(path.relative_to(_FOLDER).with_suffix("")) for path in _FOLDER.glob("**/*.yaml"))


def path_of(name: str) -> Path | None:
    """The file of a recipe, or None where none of that name ships."""
    return _FOLDER / f"{name}.yaml" if name in names() else None


def purpose(name: str) -> str:
    """The first sentence of a recipe's first paragraph, which says what it is."""
    lines = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    words = []
    for line in lines[1:]:  # the first one is a command
        if not line.removeprefix("#").strip():
            break
        words.append(line.removeprefix("#").strip())
    sentence, *_ = " ".join(words).split(". ")
    return sentence.rstrip(".")
