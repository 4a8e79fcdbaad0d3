"""Reads the command line of `serve/app.py` -> models and gateway on Ray, until Ctrl-C; or what is wrong, in one line.

Nothing here imports Ray before the command line is known to be right: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zephyr_ray.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from serve.settings import GatewaySettings, ModelApplication

FAST_PATH = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
}
"""The environment that Ray's nodes are started with: requests go past Ray Serve's own proxy, and a line of the access
log is written when the request ends, not with a thousand others."""
_CAUSE = 400  # characters of it in an error
_REPOSITORY = str(Path(__file__).resolve().parents[1])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def main(description: str) -> int:
    """The exit status."""
    _take_signals()
    try:
        _serve(_parse(description))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _take_signals() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop is a Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background


def _parse(description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", metavar="ROOT", help="serve the last checkpoint of this run, and keep feedback in it")
    parser.add_argument("--stage", choices=("base", "sft", "dpo"), help="which checkpoint of the run (default: last)")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="serve a Hugging Face folder or hub id under this name; may be repeated",
    )
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="NAME=FOLDER@MODEL", help="a LoRA adapter of a served model"
    )
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("--keys", metavar="FILE", help="API keys' hashes, written by serve/keys.py")
    parser.add_argument("--open", action="store_true", help="ask for no API key; only with a host on loopback")
    parser.add_argument(
        "--feedback", metavar="PLACE", help="folder or URI of people's choices (default: ROOT/feedback)"
    )
    parser.add_argument("--replicas", type=int, default=1, help="replicas of each model at most (default: 1)")
    parser.add_argument("--max-model-len", type=int, help="longest prompt and answer together, in tokens")
    parser.add_argument("--requests-per-minute", type=int, default=0, help="per key; 0 for no limit (default)")
    parser.add_argument("--log-text", action="store_true", help="write the requests' bodies to the access log")
    return parser.parse_args(arguments)


def _serve(options: argparse.Namespace) -> None:
    from zephyr_ray.cluster import preflight

    _check_door(options)
    preflight.check_driver()
    found = _models(options)
    applications = [_application(options, each) for each in found]
    settings = _gateway_settings(options, found)

    logging.disable(logging.INFO)  # what Ray says of itself here; the replicas' logs are in Ray's log folder
    from zephyr_ray.cluster import connect

    connect.set_environment()
    if not connect.is_joined():
        for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
            os.environ.setdefault(name, str(free_port()))
        # A model that cannot start here will not at the third time either.
        os.environ.setdefault("RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT", "1")
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")  # of 5, too few for a busy machine
    with _connected():
        _take_signals()  # Ray has put its own handler in
        _run(options, applications, settings)


def _run(options: argparse.Namespace, applications: list[ModelApplication], settings: GatewaySettings) -> None:
    """Deploys, and waits for Ctrl-C."""
    import ray
    from ray import serve
    from ray.exceptions import RayError, RayTaskError

    from zephyr_ray.cluster import connect

    try:
        serve.start(http_options={"host": options.host, "port": options.port})
    except RayError as error:  # an actor of Ray Serve that died or did not answer, most likely on a busy machine
        raise UserError(f"Ray Serve did not start: {_cause(str(error))} (more in {_logs()}); try again") from None
    print(f"loading {', '.join(each.name for each in applications)} ...", flush=True)
    # In a worker, which is forked with vLLM loaded; here its import would take as long as Ray's start.
    deploy = ray.remote(_deploy).options(num_cpus=0, scheduling_strategy=connect.this_node(), max_retries=0)
    try:
        try:
            ray.get(deploy.remote(applications, settings))
        except RayTaskError as error:
            if isinstance(error.cause, RuntimeError):  # Ray Serve's word for an application that failed
                raise _did_not_start() from None
            raise error.cause from None
        print(f"chat page   http://{options.host}:{options.port}/")
        print(f"OpenAI API  http://{options.host}:{options.port}/v1", flush=True)
        threading.Event().wait()
    finally:
        if connect.is_joined():  # a cluster that stays: what was deployed to it goes, in good order
            for name in (*(each.name for each in applications), "chat"):
                serve.delete(name)


def _deploy(applications: list[ModelApplication], settings: GatewaySettings) -> None:
    """Runs in a worker, until all applications are up.

    Raises:
        UserError: One of them cannot be.
        RuntimeError: One of them failed.
    """
    import ray
    from ray import serve

    from serve.app import chat, model

    accelerator = "gpu" if ray.cluster_resources().get("GPU") else "cpu"
    targets = [
        serve.RunTarget(model(each.model_copy(update={"accelerator": accelerator})), name=each.name, route_prefix=None)
        for each in applications
    ]
    targets.append(serve.RunTarget(chat(settings), name="chat", route_prefix="/"))
    serve.run_many(targets)


def _did_not_start() -> UserError:
    """Which application it was, why, and where the rest is: an engine's own process writes to Ray's logs alone."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    for name, application in serve.status().applications.items():
        if application.status == ApplicationStatus.DEPLOY_FAILED:
            said = [each.message for each in application.deployments.values() if each.message]
            cause = _cause("\n".join(said) or application.message)
            return UserError(f"{name} did not start: {cause} (more in {_logs()})")
    return UserError(f"the endpoint did not start; see {_logs()}")


def _logs() -> str:
    """Ray's folder of logs on this machine."""
    import ray

    node: Any = ray._private.worker._global_node
    return str(node.get_logs_dir_path())


def _cause(message: str) -> str:
    """The last exception in a message of Ray Serve's, tracebacks within tracebacks, as one line."""
    exceptions = list(re.finditer(r"^[\w.]*(?:Error|Exception)(?=: )", message, re.MULTILINE))
    cause = message[exceptions[-1].end() + 2 :] if exceptions else message
    cause = re.sub(r"\[(?:NOTICE|WARNING)\].*\n", "", cause)  # HAProxy's, before what is wrong
    # Pydantic's advice on its own pages, and the value that was refused, which may be long.
    cause = re.sub(r"For further information visit \S+|\[type=.*\]$", "", cause, flags=re.MULTILINE)
    return " ".join(cause.split())[:_CAUSE]


def _check_door(options: argparse.Namespace) -> None:
    """Keys, or openly none of them on loopback; a port that can be had."""
    from zephyr_ray.serving import keys

    if not 1 <= options.port <= 65535:
        raise UserError(f"--port {options.port}: give 1 to 65535")
    loopback = options.host in ("127.0.0.1", "localhost", "::1")
    if options.open and not loopback:
        raise UserError(f"--open goes with a host on loopback, not {options.host}; make keys with serve/keys.py")
    if not options.open and keys.read(options.keys) is None:
        raise UserError(f"give API keys: --keys FILE (serve/keys.py makes them) or {keys.VARIABLE}; or --open")
    with socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {options.host}:{options.port}: {error.strerror}; choose --port"
            ) from None


def _models(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the command line asks for, one dictionary of ServedModel's fields each; checked before Ray starts."""
    from zephyr_ray.pipeline.artifacts import Run
    from zephyr_ray.serving.model_spec import checkpoint_of_run

    found: list[dict[str, Any]] = []
    if options.stage and not options.run:
        raise UserError(f"--stage {options.stage} goes with --run")
    if options.run:
        checkpoint_of_run(options.run, options.stage)
        found.append({"name": _name_of_run(options.run), "run": Run(options.run).root, "stage": options.stage})
    for given in options.model:
        name, equals, path = given.partition("=")
        if not equals or not name or not path:
            raise UserError(f"--model {given}: give NAME=PATH")
        if path.startswith(("/", ".", "~")) and not os.path.isdir(path):
            raise UserError(f"--model {given}: {path} is not a folder")
        found.append({"name": name, "path": path})
    if not found:
        raise UserError("nothing to serve; give --run ROOT or --model NAME=PATH")
    names = [each["name"] for each in found]
    for name in names:
        if names.count(name) > 1 or name == "chat":
            raise UserError(f"--model {name}: the name is taken; choose another")
    adapters: set[str] = set()
    for given in options.adapter:
        name, _, rest = given.partition("=")
        folder, _, base = rest.rpartition("@")
        if not name or not folder or base not in names:
            raise UserError(f"--adapter {given}: give NAME=FOLDER@MODEL, where MODEL is one of {', '.join(names)}")
        if name in adapters or name in names:
            raise UserError(f"--adapter {given}: the name is taken; choose another")
        if not os.path.isdir(folder):
            raise UserError(f"--adapter {given}: {folder} is not a folder")
        adapters.add(name)
        found[names.index(base)].setdefault("adapters", {})[name] = os.path.abspath(folder)
    return found


def _name_of_run(root: str) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(root).resolve().name)
    return name.strip("._-")[:96] or "model"


def _application(options: argparse.Namespace, fields: dict[str, Any]) -> ModelApplication:
    from pydantic import ValidationError

    from serve.settings import ModelApplication

    try:
        return ModelApplication(
            **fields,
            max_model_len=options.max_model_len,
            max_replicas=options.replicas,
            keys=os.path.abspath(options.keys) if options.keys else None,
            open=options.open,
        )
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> UserError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return UserError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}")


def _gateway_settings(options: argparse.Namespace, found: list[dict[str, Any]]) -> GatewaySettings:
    from pydantic import ValidationError

    from serve.settings import GatewaySettings

    feedback = _feedback_place(options)
    try:
        return GatewaySettings(
            models={each["name"]: list(each.get("adapters", {})) for each in found},
            feedback=feedback,
            keys=os.path.abspath(options.keys) if options.keys else None,
            open=options.open,
            limits={"requests_per_minute": options.requests_per_minute},
            log_text=options.log_text,
        )
    except ValidationError as error:
        raise _wrong(error) from None


def _feedback_place(options: argparse.Namespace) -> str | None:
    """The folder or URI of people's choices, which can be written."""
    from serve.feedback import open_feedback
    from zephyr_ray.storage import is_uri, refusal

    place = options.feedback or (os.path.join(options.run, "feedback") if options.run else None)
    if place is None:
        return None
    try:
        open_feedback(place).check_writable()
    except OSError as error:
        if is_uri(place):
            raise refusal(f"--feedback {place}", error) from None
        raise UserError(f"feedback cannot be kept in {place}: {error.strerror}; choose --feedback") from None
    return place if is_uri(place) else os.path.abspath(place)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """The cluster of RAY_ADDRESS, or one on this machine while the endpoint is up."""
    from zephyr_ray.cluster import connect, preload

    if connect.is_joined():
        import ray

        with ray.init(runtime_env={"env_vars": {"PYTHONPATH": _REPOSITORY}}):
            yield
    else:
        os.environ["PYTHONPATH"] = _REPOSITORY
        with connect.started(preload.SERVING, log_to_driver=False, logging_level=logging.ERROR):
            yield


def free_port() -> int:
    """A port below those that Linux gives to outgoing connections, which Ray opens many of before this one is used."""
    while True:
        port = random.randint(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
