"""What made an artifact: the versions of everything that had a part in it."""

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
    """Versions of Python, the packages and, in a checkout, the commit."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a working directory that is not installed, or a part that is not used
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
