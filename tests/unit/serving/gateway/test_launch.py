"""The options of the chat endpoint and its start. Nothing here starts Ray."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from zephyr_ray.cli.app import command
from zephyr_ray.cluster.ports import free_port
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.serving import applications, keys
from zephyr_ray.serving.gateway.launch import _cause, _named
from zephyr_ray.serving.gateway.options import (
    EndpointOptions,
    _name_of_run,
    check_address,
    gateway_settings,
    model_application,
    served_models,
)
from zephyr_ray.serving.gateway.settings import GatewaySettings, ModelApplication
from zephyr_ray.serving.keys import add

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keys.VARIABLE, raising=False)


def options(*arguments: str) -> EndpointOptions:
    """What the command `serve` makes of these arguments."""
    given: list[EndpointOptions] = []
    serving = "zephyr_ray.serving.gateway.launch.serve_until_stopped"
    with mock.patch(serving, given.append), mock.patch.dict(os.environ):
        command()(args=["serve", *arguments], standalone_mode=False)
    return given[0]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != keys.VARIABLE}
    command = [sys.executable, str(ROOT / "serve/app.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


# --- the models


def test_models_and_adapters_of_the_command_line(tmp_path: Path) -> None:
    given = ["--model", "a=owner/model", "--model", f"b={tmp_path}", "--adapter", f"c={tmp_path}@b"]
    assert served_models(options(*given)) == [
        {"name": "a", "path": "owner/model"},
        {"name": "b", "path": str(tmp_path), "adapters": {"c": str(tmp_path)}},
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to serve"),
        (("--model", "a"), "--model a: give NAME=PATH"),
        (("--model", "=x"), "give NAME=PATH"),
        (("--model", "a="), "give NAME=PATH"),
        (("--model", "a=x/y", "--model", "a=x/z"), "--model a: the name is taken"),
        (("--model", "chat=x/y"), "--model chat: the name is taken"),
        (("--model", "a=/no/where"), "/no/where is not a folder"),
        (("--model", "a=x/y", "--adapter", "b"), "give NAME=FOLDER@MODEL"),
        (("--model", "a=x/y", "--adapter", "b=.@c"), "MODEL is one of a"),
        (("--model", "a=x/y", "--adapter", "a=.@a"), "the name is taken"),
        (("--model", "a=x/y", "--model", "d=x/y", "--adapter", "b=.@a", "--adapter", "b=.@d"), "the name is taken"),
        (("--model", "a=x/y", "--adapter", "b=/no/where@a"), "/no/where is not a folder"),
        (("--model", "a=x/y", "--stage", "dpo"), "--stage dpo goes with --run"),
        (("--run", "/no/where"), "/no/where has no finished checkpoint"),
        (("--run", "/no/where", "--stage", "sft"), "/no/where has no finished sft stage"),
    ],
)
def test_a_wrong_model_is_a_users_error(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says) as raised:
        served_models(options(*arguments))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--replicas", "0"), "max_replicas"),
        (("--max-model-len", "1"), "max_model_len"),
        (("--model", "b c=x/y"), "name"),
    ],
)
def test_a_wrong_setting_is_found_before_ray_starts(arguments: tuple[str, ...], says: str) -> None:
    given = options("--model", "a=x/y", *arguments)
    *_, last = served_models(given)
    with pytest.raises(UserError, match=says) as raised:
        model_application(given, last)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("folder", "name"), [("tiny", "tiny"), ("my run", "my-run"), ("é_a.", "a"), ("...", "model"), ("x" * 200, "x" * 96)]
)
def test_a_run_gives_its_model_a_name_that_can_be_served(folder: str, name: str) -> None:
    assert _name_of_run(f"/runs/{folder}") == name
    assert ModelApplication(name=name, path="x/y").name == name


# --- the address


def test_the_newest_model_of_a_run_is_told(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "mine"))
    for stage in ("dpo", "round_2/dpo"):
        run.artifact(stage).begin("f")
        run.artifact(stage).finish({"fingerprint": "f"})
    for given, stage in (((), "round_2/dpo"), (("--stage", "dpo"), "dpo")):
        asked = options("--run", str(tmp_path / "mine"), "--open", *given)
        (fields,) = served_models(asked)
        assert fields == {"name": "mine", "run": run.root, "stage": stage}
        assert _named(model_application(asked, fields)) == f"mine ({stage})"
    assert _named(ModelApplication(name="mine", path="owner/model", open=True)) == "mine"


def test_an_endpoint_has_keys_or_is_open_on_loopback(tmp_path: Path) -> None:
    port = str(free_port())
    check_address(options("--open", "--port", port))
    add(str(tmp_path / "keys"), "alice")
    check_address(options("--keys", str(tmp_path / "keys"), "--host", "0.0.0.0", "--port", port))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give API keys"),
        (("--open", "--host", "0.0.0.0"), "--open goes with a host on loopback"),
        (("--keys", "/no/where"), "cannot be read"),
        (("--open", "--port", "0"), "--port 0: give 1 to 65535"),
        (("--open", "--port", "65536"), "--port 65536: give 1 to 65535"),
    ],
)
def test_a_wrong_address_is_a_users_error(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_address(options(*arguments))


def test_a_port_that_is_taken_is_a_users_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match=r"cannot listen on .*: Address already in use; choose --port"):
            check_address(options("--open", "--port", str(taken.getsockname()[1])))


# --- the gateway


def test_the_gateway_is_told_what_the_command_line_says(tmp_path: Path) -> None:
    given = options("--open", "--feedback", str(tmp_path / "f"), "--requests-per-minute", "5", "--log-text")
    settings = gateway_settings(given, [{"name": "a", "adapters": {"b": "x"}}])
    assert settings == GatewaySettings(
        models={"a": ["b"]},
        feedback=str(tmp_path / "f"),
        open=True,
        limits={"requests_per_minute": 5},
        log_text=True,
    )
    assert (tmp_path / "f").is_dir()


def test_wrong_settings_of_the_gateway_are_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"limits\.requests_per_minute"):
        gateway_settings(options("--requests-per-minute", "-1"), [{"name": "a"}])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="feedback cannot be kept"):
        gateway_settings(options("--feedback", str(tmp_path / "file")), [{"name": "a"}])


@pytest.mark.parametrize("builder", [applications.model, applications.chat])
def test_ray_serve_finds_the_class_of_the_arguments(builder: Any) -> None:
    (parameter,) = inspect.signature(builder).parameters.values()
    assert isinstance(parameter.annotation, type)


@pytest.mark.parametrize(
    "build",
    [
        lambda: applications.model(ModelApplication(name="m", path="x/y")),
        lambda: applications.chat(GatewaySettings(models={"m": []})),
    ],
    ids=["model", "gateway"],
)
def test_neither_a_model_nor_the_gateway_goes_without_keys(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Any]
) -> None:
    """A replica has a port of its own: without keys it would be a way around the gateway's."""
    monkeypatch.delenv("ZEPHYR_API_KEYS", raising=False)
    monkeypatch.setattr(applications, "_check_cluster", lambda: None)
    with pytest.raises(UserError, match="no API keys"):
        build()


# --- a model that does not start

NESTED = """The deployment failed to start 1 times in a row. See controller logs for details. Error:
ray.exceptions.RayTaskError(RuntimeError): ray::ServeReplica:long (pid=1, ip=127.0.0.1)
  File "replica.py", line 1, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "vllm_engine.py", line 222, in _get_vllm_engine_config
RuntimeError: Failed to create vLLM engine config: 1 validation error for ModelConfig
  Value error, max_model_len (99999) is greater than 1024. [type=value_error, input_value=ArgsKwargs((), {...}]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            NESTED,
            "Failed to create vLLM engine config: 1 validation error for ModelConfig "
            "Value error, max_model_len (99999) is greater than 1024.",
        ),
        ("No node has a GPU.\nAdd one.", "No node has a GPU. Add one."),
        ("ValueError: " + "x" * 2000, "x" * 400),
        (
            "RuntimeError: HAProxy crashed during startup: [NOTICE] (7) : haproxy version is 2.8\n"
            "[WARNING] (7) : config : no log address.\n[ALERT] (7) : cannot bind socket [127.0.0.1:8000]\n",
            "HAProxy crashed during startup: [ALERT] (7) : cannot bind socket [127.0.0.1:8000]",
        ),
    ],
    ids=["nested", "no exception", "long", "HAProxy"],
)
def test_what_stopped_a_model_is_one_line(message: str, cause: str) -> None:
    assert _cause(message) == cause


# --- the command


def test_help_comes_before_ray_is_imported() -> None:
    began = time.monotonic()
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "zephyr-ray serve --run" in done.stdout
    assert time.monotonic() - began < 20
    script = "import sys, zephyr_ray.serving.gateway.launch; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--open", "--model", "a"), "error: --model a: give NAME=PATH\n"),
        (
            ("--port", "x"),
            "error: Invalid value for '--port': Input should be a valid integer, unable to parse string as an integer; "
            "see --help\n",
        ),
        (("--wrong",), "error: No such option: --wrong (Possible options: --open, --run); see --help\n"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(arguments: tuple[str, ...], says: str) -> None:
    done = run("--open", "--port", str(free_port()), *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", says)
