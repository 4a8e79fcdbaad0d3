"""Reads the locks, pyproject.toml, the Dockerfile and the index; prints what holds or what does not. Installs nothing.

python requirements/check.py
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
HERE = REPO / "requirements"
PLATFORM = ["--python-platform", "x86_64-manylinux_2_31"]
# The rules of packages.sh for which file of a version is taken.
FILES = ["--no-deps", "--only-binary", ":all:", "--no-binary", "deepspeed", *PLATFORM]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for kind in ("cpu", "cuda"):
            (scratch / f"{kind}.lock").write_text(_without_hashes(HERE / f"{kind}.lock"))
        _run([str(HERE / "lock.sh"), sys.executable, str(scratch)])
        for kind in ("cpu", "cuda"):
            _check_resolution(kind, scratch / f"{kind}.lock")
            _check_files(kind, scratch)
            count = len(_hashes(HERE / f"{kind}.lock"))
            print(f"requirements/{kind}.lock: as pyproject.toml resolves; {count} packages, each file hashed")
        dry_run = ["--dry-run", "--target", str(scratch / "target"), *PLATFORM]
        _run([str(HERE / "packages.sh"), sys.executable, "cpu", *dry_run])
        print("requirements/install.sh: its commands resolve")
        _check_dockerfile(scratch / "image", dry_run)
        print("Dockerfile: its steps resolve")


def _check_resolution(kind: str, anew: Path) -> None:
    """A version may have got more files since it was locked, but has to have every one that was."""
    lock = HERE / f"{kind}.lock"
    ours, theirs = _without_hashes(lock).splitlines(), _without_hashes(anew).splitlines()
    if ours != theirs:
        diff = difflib.unified_diff(ours, theirs, lock.name, "pyproject.toml", n=0, lineterm="")
        _fail(f"{lock.name} is not what pyproject.toml resolves to; run make lock", *diff)
    offered = _hashes(anew)
    foreign = [f"{pin} {each}" for pin, hashes in _hashes(lock).items() for each in sorted(hashes - offered[pin])]
    if foreign:
        _fail(f"{lock.name} has hashes that no file of the index has", *foreign)


def _check_files(kind: str, scratch: Path) -> None:
    """uv compares hashes when it downloads; here its choice of files is compared."""
    lock, chosen = HERE / f"{kind}.lock", scratch / f"pylock.{kind}.toml"
    compile_ = ["pip", "compile", "-q", "--python-version", "3.11", "-o", str(chosen), str(lock)]
    _run([str(HERE / "uv.sh"), sys.executable, kind, *compile_, *FILES])
    locked = _hashes(lock)
    for package in tomllib.loads(chosen.read_text())["packages"]:
        pin = f"{package['name']}=={package['version']}"
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        if not locked[pin] & {file["hashes"]["sha256"] for file in files}:
            _fail(f"{lock.name} has no hash of the file of {pin} for this platform")


def _check_dockerfile(image: Path, dry_run: list[str]) -> None:
    """The steps up to the code's, on what was copied for them."""
    ignore = (REPO / ".dockerignore").read_text().split()
    for line in (REPO / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *sources, folder = re.sub(r"--\S+ ", "", rest).split()
            if sources == ["."]:
                return
            (image / folder).mkdir(parents=True, exist_ok=True)
            for file in itertools.chain.from_iterable(map(REPO.glob, sources)):
                if f"!{file.relative_to(REPO)}" in ignore:
                    shutil.copy(file, image / folder)
        elif word == "RUN":
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            _run(["bash", "-c", f'{rest} "$@"', "-", *dry_run], cwd=image, env=os.environ | {"PATH": path})


def _without_hashes(lock: Path) -> str:
    return re.sub(r" \\\n +--hash=\S+", "", lock.read_text())


def _hashes(lock: Path) -> dict[str, set[str]]:
    pins = re.findall(r"^(\w\S*==\S+)((?: \\\n +--hash=\S+)*)", lock.read_text(), re.MULTILINE)
    return {pin: set(re.findall(r"sha256:(\w+)", hashes)) for pin, hashes in pins}


def _run(command: list[str], cwd: Path = REPO, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        _fail(f"{Path(command[0]).name} failed", done.stdout.rstrip())


def _fail(*lines: str) -> None:
    raise SystemExit("\n".join(["error: " + lines[0], *lines[1:]]))


if __name__ == "__main__":
    main()
