"""What GitHub, pre-commit and CITATION.cff are told agrees with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
MAKEFILE = (REPO / "Makefile").read_text()


def read(name: str) -> Any:
    return yaml.safe_load((REPO / name).read_text(encoding="utf-8"))


def test_the_workflow_runs_targets_of_make_with_the_projects_python() -> None:
    job = read(".github/workflows/ci.yml")["jobs"]["make"]
    assert job["strategy"]["matrix"]["target"] == ["check", "test"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    wanted = {name for command in commands for name in re.findall(r"make KIND=cpu ([a-z]\S*)$", command)}
    assert all(re.search(rf"^{name}:", MAKEFILE, re.MULTILINE) for name in wanted | {"check", "test"})
    (python,) = (step["with"]["python-version"] for step in job["steps"] if "python" in step.get("uses", ""))
    assert PROJECT["requires-python"].startswith(f">={python}")


def test_hooks_run_what_make_lint_runs() -> None:
    (repo,) = read(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"  # nothing is fetched: the lock's own tools
    hooks = {hook["entry"].split(" --")[0].removeprefix(".venv/bin/python -m ") for hook in repo["hooks"]}
    recipe = re.search(r"^lint:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    linted = [line.split(" -m ")[1] for line in recipe[1].splitlines()]
    assert sorted(hooks) == sorted(line.replace(" --check", "").removesuffix(" .") for line in linted)


def test_forms_ask_for_what_they_need_by_names_of_their_own() -> None:
    for path in sorted((REPO / ".github" / "ISSUE_TEMPLATE").glob("*.yml")):
        form = read(str(path.relative_to(REPO)))
        names = [field["id"] for field in form["body"]]
        assert len(set(names)) == len(names)
        assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_what_is_cited_is_this_version_and_the_paper() -> None:
    cited = read("CITATION.cff")
    assert (cited["version"], cited["license"]) == (PROJECT["version"], PROJECT["license"])
    (paper,) = cited["references"]
    assert paper["url"].removeprefix("https://arxiv.org/abs/") in (REPO / "README.md").read_text()
