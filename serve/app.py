"""Serves chat models behind an OpenAI-compatible endpoint, with a chat page at /.

    python serve/app.py --run runs/tiny
    python serve/app.py --model zephyr=HuggingFaceH4/zephyr-7b-beta --model mine=runs/mine/dpo/checkpoint
    serve deploy serve/config.yaml

The first two start Ray on this machine (or join the cluster of RAY_ADDRESS) and run until Ctrl-C. The last one deploys
to a cluster whose nodes were started with RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1.
"""

# No `from __future__ import annotations` here: Ray Serve reads the class of `args` off the builders' annotations.
import argparse
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

REPOSITORY = str(Path(__file__).resolve().parents[1])
if sys.path[0] != REPOSITORY:  # run as a script, this folder is first, and `serve` would not be found
    sys.path.insert(0, REPOSITORY)
_FAST_PATH = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
if __name__ == "__main__":  # before Ray is imported, which reads them then
    os.environ.update(_FAST_PATH)

from ray.serve import Application  # noqa: E402

from serve.gateway import GatewaySettings  # noqa: E402
from zephyr_ray.errors import UserError  # noqa: E402
from zephyr_ray.inference.served_model import ServedModel  # noqa: E402


class ModelApplication(ServedModel):
    """The arguments of an application that holds one model."""

    keys: str | None = None
    """File of API keys' hashes, the gateway's."""
    open: bool = False
    """Let every caller in, as the gateway does."""


def model(args: ModelApplication) -> Application:
    """The application of one model; it has no route of its own (`route_prefix: null`)."""
    from ray import serve
    from ray.serve.llm import build_llm_deployment

    from zephyr_ray.inference.chat_server import ChatServer
    from zephyr_ray.inference.served_model import llm_config

    _check_cluster()
    served = ServedModel(**args.model_dump(exclude={"keys", "open"}))
    return build_llm_deployment(
        llm_config(served),
        name_prefix="",
        deployment_cls=serve.ingress()(ChatServer),
        bind_kwargs={"max_requests": args.max_requests, "keys_file": args.keys, "open_to_all": args.open},
    )


def chat(args: GatewaySettings) -> Application:
    """The application that clients reach: page, OpenAI routes, feedback."""
    from ray import serve

    from serve.gateway import Gateway
    from zephyr_ray.inference import keys

    _check_cluster()
    if not args.open and keys.read(args.keys) is None:
        raise UserError(
            f"the endpoint has no API keys; set {keys.VARIABLE}, give a file of them (serve/keys.py), or say "
            "open: true with an HTTP host on loopback"
        )
    deployment = serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        num_replicas=args.replicas,
        max_ongoing_requests=10_000,  # what waits is bounded at the models
        ray_actor_options={"num_cpus": 0},
        max_surge_percent=100,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=args.limits.timeout_s,
    )
    application: Application = deployment.bind(settings=args)  # type: ignore[attr-defined]
    return application


def _check_cluster() -> None:
    from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY

    if not RAY_SERVE_ENABLE_HA_PROXY:
        pairs = " ".join(f"{name}={value}" for name, value in _FAST_PATH.items())
        raise UserError(f"this Ray cluster was not started for the chat endpoint; start its nodes with {pairs}")


def main() -> None:
    options = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop is a Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background
    try:
        _serve(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--feedback", metavar="FOLDER", help="where people's choices go (default: ROOT/feedback)")
    parser.add_argument("--replicas", type=int, default=1, help="replicas of each model at most (default: 1)")
    parser.add_argument("--max-model-len", type=int, help="longest prompt and answer together, in tokens")
    parser.add_argument("--requests-per-minute", type=int, default=0, help="per key; 0 for no limit (default)")
    parser.add_argument("--log-text", action="store_true", help="write the requests' bodies to the access log")
    return parser.parse_args()


def _serve(options: argparse.Namespace) -> None:
    _check_door(options)
    found = _models(options)

    from zephyr_ray import cluster

    cluster.set_environment()
    if not os.environ.get("RAY_ADDRESS"):
        for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
            os.environ.setdefault(name, str(_free_port()))
    import ray
    from ray import serve

    _start_ray()
    accelerator = "gpu" if ray.cluster_resources().get("GPU") else "cpu"
    settings = _gateway_settings(options, found)
    targets = [
        serve.RunTarget(model(_application(options, each, accelerator)), name=each["name"], route_prefix=None)
        for each in found
    ]
    targets.append(serve.RunTarget(chat(settings), name="chat", route_prefix="/"))
    serve.start(http_options={"host": options.host, "port": options.port})
    print(f"loading {', '.join(each['name'] for each in found)} ...", flush=True)
    try:
        serve.run_many(targets)
        print(f"chat page   http://{options.host}:{options.port}/")
        print(f"OpenAI API  http://{options.host}:{options.port}/v1", flush=True)
        threading.Event().wait()
    finally:
        if os.environ.get("RAY_ADDRESS"):  # a cluster that stays: what was deployed to it goes, in good order
            for target in targets:
                serve.delete(target.name)
        ray.shutdown()


def _check_door(options: argparse.Namespace) -> None:
    """Keys, or openly none of them on loopback; a port that can be had."""
    from zephyr_ray.inference import keys

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
    from zephyr_ray.inference.served_model import checkpoint_of_run

    found: list[dict[str, Any]] = []
    if options.run:
        checkpoint_of_run(options.run, options.stage)
        found.append({"name": _name_of_run(options.run), "run": os.path.abspath(options.run), "stage": options.stage})
    for given in options.model:
        name, equals, path = given.partition("=")
        if not equals or not name or not path:
            raise UserError(f"--model {given}: give NAME=PATH")
        found.append({"name": name, "path": path})
    if not found:
        raise UserError("nothing to serve; give --run ROOT or --model NAME=PATH")
    names = [each["name"] for each in found]
    for name in names:
        if names.count(name) > 1 or name == "chat":
            raise UserError(f"--model {name}: the name is taken; choose another")
    for given in options.adapter:
        name, _, rest = given.partition("=")
        folder, _, base = rest.rpartition("@")
        if not name or not folder or base not in names:
            raise UserError(f"--adapter {given}: give NAME=FOLDER@MODEL, where MODEL is one of {', '.join(names)}")
        found[names.index(base)].setdefault("adapters", {})[name] = os.path.abspath(folder)
    return found


def _name_of_run(root: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(root).resolve().name).strip("._-") or "model"


def _application(options: argparse.Namespace, fields: dict[str, Any], accelerator: str) -> ModelApplication:
    from pydantic import ValidationError

    try:
        return ModelApplication(
            **fields,
            accelerator=accelerator,
            max_model_len=options.max_model_len,
            max_replicas=options.replicas,
            keys=os.path.abspath(options.keys) if options.keys else None,
            open=options.open,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None


def _gateway_settings(options: argparse.Namespace, found: list[dict[str, Any]]) -> GatewaySettings:
    folder = options.feedback or (os.path.join(options.run, "feedback") if options.run else None)
    if folder is not None:
        from serve.feedback import Feedback

        try:
            Feedback(os.path.abspath(folder)).check_writable()
        except OSError as error:
            raise UserError(f"feedback cannot be kept in {folder}: {error.strerror}; choose --feedback") from None
    return GatewaySettings(
        models={each["name"]: list(each.get("adapters", {})) for each in found},
        feedback=os.path.abspath(folder) if folder else None,
        keys=os.path.abspath(options.keys) if options.keys else None,
        open=options.open,
        limits={"requests_per_minute": options.requests_per_minute},
        log_text=options.log_text,
    )


def _start_ray() -> None:
    import ray

    runtime_env = {"env_vars": {"PYTHONPATH": REPOSITORY}}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env=runtime_env)
    else:
        cpus = max(4, os.cpu_count() or 1)
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=runtime_env,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    from serve.app import main as run  # under its importable name, so that Ray's workers find what it defines

    run()
