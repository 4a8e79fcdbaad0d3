"""Provenance of an artifact: the versions of everything that took part in making it."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "zephyr-ray",
    "torch",
    "ray",
    "transformers",
    "trl",
    "deepspeed",
    "accelerate",
    "peft",
    "pyarrow",
    "tokenizers",
)


def environment() -> dict[str, str]:
    """Versions of Python and the packages, and the commit if this is a checkout."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a working directory that is not installed, or an unused package
            continue
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or not a repository of this user
        return None
