"""The commands of `zephyr-ray`: help, completion, exit statuses, and what each one hands on. None starts Ray here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from zephyr_ray.cli.app import command
from zephyr_ray.cli.exit_status import exit_with
from zephyr_ray.config import shipped
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.runner import Consent

COMMANDS = ("run", "dry-run", "report", "serve", "lineage", "keys", "recipes", "up", "down", "submit")


def status_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        exit_with(command(), arguments, "zephyr-ray")
    assert isinstance(raised.value.code, int)
    return raised.value.code


def handed_to(function: str, *arguments: str) -> mock._Call:
    """What a command calls this function with, which is not run."""
    with mock.patch(function, return_value=0) as called:
        assert status_of(*arguments) == 0
    return called.call_args


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--help") == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert tuple(line.split()[0] for line in listed.splitlines() if line) == COMMANDS
    assert "..." not in listed  # no first sentence is cut


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_has_an_example(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert status_of(name, "--help") == 0
    text = capsys.readouterr().out
    assert re.search(rf"^      zephyr-ray {name}\b", text, re.MULTILINE)


def test_help_imports_nothing_heavy() -> None:
    heavy = "('torch', 'ray', 'pyarrow', 'pydantic', 'yaml', 'rich')"
    script = f"import sys, zephyr_ray.cli.app as a; a.command(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_command_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("runn",), "error: No such command 'runn'. Did you mean 'run'?; see --help\n"),
        (("run",), "error: Missing argument 'RECIPE'; see --help\n"),
        (("run", "tiny", "--sett", "a=1"), "error: No such option: --sett (Possible options: --set); see --help\n"),
        (
            ("run", "tiny", "--set", "dpo.betta=1"),
            "error: --set dpo.betta=1: unknown key dpo.betta; did you mean",
        ),
        (("run", "tiny", "--set", "dpo.\x1b[2J=1"), r"error: --set dpo.\x1b[2J=1: unknown key dpo.\x1b[2J"),
        (("run", "nothing"), "error: recipe nothing: No such file or directory; give the path of a YAML file, or"),
        (
            ("recipes", "nothing"),
            "error: no recipe nothing ships; there are cleaning, delta, generation, grpo, kto, mistral-orpo-beta, ",
        ),
        (("submit", "--local", "--address", "http://a:1", "true"), "error: --local and --address name two clusters"),
        (("serve", "--open", "--stage", "x"), "error: --stage x goes with --run"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert status_of(*arguments) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith(says)
    assert seen.err.count("\n") == 1


@pytest.mark.parametrize(("error", "status"), [(UserError("a. Do b"), 2), (KeyboardInterrupt(), 130)])
def test_errors_become_exit_statuses(error: BaseException, status: int) -> None:
    with mock.patch("zephyr_ray.cli.pipeline.run", side_effect=error):
        assert status_of("run", "tiny") == status


def test_another_error_is_no_users_and_comes_through() -> None:
    with mock.patch("zephyr_ray.cli.pipeline.run", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        exit_with(command(), ["run", "tiny"], "zephyr-ray")


@pytest.mark.parametrize(
    ("arguments", "targets", "options"),
    [
        (("run", "tiny"), [], {}),
        (("run", "tiny", "--from", "prompts", "--until", "judgments"), ["judgments"], {"begin": "prompts"}),
        (("run", "tiny", "--dry-run"), [], {"only_show": True}),
        (
            ("run", "tiny", "--overwrite", "sft", "--overwrite", "dpo", "--take-over", "--no-lease"),
            [],
            {"consent": Consent(("sft", "dpo"), True, False)},
        ),
        (("run", "tiny", "--json"), [], {"as_json": True}),
        (("dry-run", "tiny", "--until", "sft"), ["sft"], {"only_show": True}),
        (("dry-run", "tiny", "--json"), [], {"only_show": True, "as_json": True}),
    ],
)
def test_what_run_hands_on(arguments: tuple[str, ...], targets: list[str], options: dict[str, Any]) -> None:
    load, *given = handed_to("zephyr_ray.cli.pipeline.run", *arguments, "--set", "dpo.beta=0.3").args
    assert load().dpo.beta == 0.3
    assert given == [targets, "run"]
    usual = {"begin": None, "evaluate": not targets, "only_show": False, "consent": Consent(), "as_json": False}
    assert handed_to("zephyr_ray.cli.pipeline.run", *arguments).kwargs == usual | options


def test_several_recipes_are_merged() -> None:
    names = ("zephyr-7b-beta/paper", "zephyr-7b-beta/feedback")
    (load, *_) = handed_to("zephyr_ray.cli.pipeline.run", "run", *names).args
    recipe = load()
    assert recipe.sampling is not None
    assert recipe.dpo.beta == 0.1


def test_a_jobs_command_is_what_stands_after_the_first_word_that_is_no_option() -> None:
    submit = "zephyr_ray.cluster.submit.submit"
    job = ("python", "jobs/dpo.py", "--set", "dpo.beta=1", "--no-wait")
    for dashes in ((), ("--",)):
        called = handed_to(submit, "submit", "--address", "http://a:1", "--env", "A", "--env", "B", *dashes, *job)
        assert called.args == ([*job],)
        assert called.kwargs == {
            "address": "http://a:1",
            "variables": ["A", "B"],
            "name": None,
            "working_dir": None,
            "wait": True,
        }


def test_a_local_job_without_a_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEPHYR_RAY_CACHE", str(tmp_path))
    assert status_of("submit", "--local", "true") == 2
    assert capsys.readouterr().err == "error: no cluster to submit to is up; start it with zephyr-ray up\n"


def test_a_recipe_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("recipes", "tiny") == 0
    path = shipped.path_of("tiny")
    assert path is not None
    assert capsys.readouterr().out == path.read_text()


def test_the_list_has_a_line_for_each_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped.names()
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize(
    ("words", "completed"),
    [("zephyr-ray dr", {"dry-run"}), ("zephyr-ray run ti", {"tiny"}), ("zephyr-ray run --un", {"--until"})],
)
def test_a_shell_completes_commands_options_and_recipes(words: str, completed: set[str]) -> None:
    variables = {"_ZEPHYR_RAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command_line = [sys.executable, "-m", "zephyr_ray"]
    done = subprocess.run(command_line, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed
