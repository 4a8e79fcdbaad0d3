"""The package without a checkout: a wheel in an environment of its own, used in a folder that holds nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import embedded_world
from tests.integration.cluster import free_port
from tests.integration.jobs import REPO, copy_run, manifest
from zephyr_ray.cluster import fork_server

PAGE = (REPO / "docs" / "api.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
BUILD = "import setuptools.build_meta as backend; print(backend.build_{}('dist'))"


@dataclass(frozen=True)
class Installed:
    """An environment that has the package from a wheel, and an empty folder to work in."""

    environment: Path
    folder: Path

    def start(self, *command: str, log: Path | None = None) -> subprocess.Popen[str]:
        out = log.open("w") if log else subprocess.PIPE
        variables = {name: value for name, value in os.environ.items() if name != fork_server.VARIABLE}
        variables |= {"PYTHONPATH": "", "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}"}
        program = [str(self.environment / "bin" / command[0]), *command[1:]]
        return subprocess.Popen(
            program, cwd=self.folder, env=variables, stdout=out, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *command: str) -> str:
        process = self.start(*command)
        seen, _ = process.communicate(timeout=400)
        assert process.returncode == 0, seen
        return seen


def build(folder: Path) -> Path:
    """The wheel of a source distribution of a copy of this repository."""
    source = folder / "source"
    source.mkdir()
    for name in ("zephyr_ray", "recipes"):
        shutil.copytree(REPO / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    with tarfile.open(_built("sdist", source)) as archive:
        archive.extractall(folder / "sdist", filter="tar")
    (unpacked,) = (folder / "sdist").iterdir()
    return _built("wheel", unpacked)


def _built(kind: str, source: Path) -> Path:
    command = [sys.executable, "-c", BUILD.format(kind)]
    said = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True).stdout
    return source / "dist" / said.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, and beside it the packages that this test's own environment has; of this project they have nothing."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build(folder)
    environment = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Of a folder that is named in a .pth file, .pth files are not read: the editable install of a checkout is one.
    (packages / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "work").mkdir()
    return Installed(environment, folder / "work")


@pytest.fixture(scope="module")
def demo(installed: Installed, undisturbed: Path) -> Path:
    """runs/tiny, where the demo leaves its run: one that is finished."""
    return copy_run(undisturbed, installed.folder / "runs" / "tiny")


def test_it_is_the_wheels_package_and_no_checkouts(installed: Installed) -> None:
    said = installed.run("python", "-c", "import zephyr_ray; print(zephyr_ray.__file__)")
    assert said.startswith(str(installed.environment))
    assert installed.run("zephyr-ray", "--version") == "zephyr_ray 0.1.0\n"


def test_the_recipes_that_ship_are_those_of_the_repository(installed: Installed) -> None:
    listed = [line.split()[0] for line in installed.run("zephyr-ray", "recipes").splitlines()]
    files = {str(path.relative_to(REPO / "recipes")): path for path in (REPO / "recipes").rglob("*.yaml")}
    assert sorted(f"{name}.yaml" for name in listed) == sorted(files)
    name = "zephyr-7b-beta/paper"
    assert installed.run("zephyr-ray", "recipes", name) == files[f"{name}.yaml"].read_text()


def test_a_dry_run_of_a_recipe_by_its_name(installed: Installed) -> None:
    said = installed.run("zephyr-ray", "dry-run", "tiny", "--set", "run.root=none", "--until", "prompts")
    assert "in " + str(installed.folder / "none") in said
    assert said.splitlines()[-1].split()[0] == "prompts"
    assert not (installed.folder / "none").exists()


def test_a_recipe_by_its_name_to_two_steps_of_training(installed: Installed) -> None:
    settings = {
        "run.root": "runs/mine",
        "dialogues.train": embedded_world.rows("dialogues", 64),
        "sft.max_steps": 2,
    }
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    said = installed.run("zephyr-ray", "run", "tiny", "--until", "sft", *given)
    assert "chat with it: zephyr-ray serve --run" in said
    assert manifest(installed.folder / "runs" / "mine", "sft")["trained"]["rows"] > 0


def test_the_snippets_of_the_page_on_python(installed: Installed, demo: Path) -> None:
    *offline, _ = SNIPPETS
    (installed.folder / "page.py").write_text("\n".join(offline))
    said = installed.run("python", "page.py").splitlines()
    assert said[0] == "0.05"
    assert "Paris. Lyon." in said
    assert any("judgments_of_nobody is not finished" in line for line in said)
    assert manifest(installed.folder / "runs" / "notebook", "prompts")["counts"]["out"] > 0


@contextmanager
def endpoint(installed: Installed, *arguments: str) -> Iterator[int]:
    """`zephyr-ray serve` on a port."""
    port, log = free_port(), installed.folder / "serve.log"
    process = installed.start("zephyr-ray", "serve", *arguments, "--open", "--port", str(port), log=log)
    deadline = time.monotonic() + 300
    try:
        while "OpenAI API" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield port
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()


def test_the_chat_endpoint_answers_the_page_on_python(installed: Installed, demo: Path) -> None:
    *_, chat = SNIPPETS
    with endpoint(installed, "--run", "runs/tiny", "--feedback", "feedback") as port:
        (installed.folder / "chat.py").write_text(
            chat.replace(":8000/", f":{port}/") + "print(answer.model_dump_json())\n"
        )
        answer = json.loads(installed.run("python", "chat.py").splitlines()[-1])
    assert answer["model"] == "tiny"
    assert answer["usage"]["completion_tokens"] > 0
