"""Serves chat models behind an OpenAI-compatible endpoint, with a chat page at /.

    python serve/app.py --run runs/tiny --open
    python serve/app.py --model zephyr=HuggingFaceH4/zephyr-7b-beta --model mine=runs/mine/dpo/checkpoint --keys FILE
    serve deploy serve/config.yaml

The first two start Ray on this machine (or join the cluster of RAY_ADDRESS) and run until Ctrl-C. The last one deploys
to a cluster whose nodes were started with RAY_SERVE_ENABLE_HA_PROXY=1 and RAY_SERVE_THROUGHPUT_OPTIMIZED=1.
"""

# No `from __future__ import annotations` here: Ray Serve reads the class of `args` off the builders' annotations.
import os
import sys
from pathlib import Path

REPOSITORY = str(Path(__file__).resolve().parents[1])
if sys.path[0] != REPOSITORY:  # run as a script, this folder is first, and `serve` would not be found
    sys.path.insert(0, REPOSITORY)

from serve.command_line import FAST_PATH, main  # noqa: E402

if __name__ == "__main__":  # the rest is imported by its name `serve.app`, under which Ray's workers find it
    os.environ.update(FAST_PATH)  # before Ray is imported, which reads them then
    sys.exit(main(str(__doc__)))

from ray.serve import Application  # noqa: E402

from serve.settings import GatewaySettings, ModelApplication  # noqa: E402
from zephyr_ray.errors import UserError  # noqa: E402
from zephyr_ray.serving.model_spec import ServedModel  # noqa: E402


def model(args: ModelApplication) -> Application:
    """The application of one model; it has no route of its own (`route_prefix: null`)."""
    _check_cluster()
    _check_keys(args.open, args.keys)
    from ray import serve
    from ray.serve.llm import build_llm_deployment

    from zephyr_ray.serving.chat_replica import ChatReplica
    from zephyr_ray.serving.model_spec import llm_config

    served = ServedModel(**args.model_dump(exclude={"keys", "open"}))
    return build_llm_deployment(
        llm_config(served),
        name_prefix="",
        deployment_cls=serve.ingress()(ChatReplica),
        bind_kwargs={"max_requests": args.max_requests, "keys_file": args.keys, "open_to_all": args.open},
    )


def chat(args: GatewaySettings) -> Application:
    """The application that clients reach: page, OpenAI routes, feedback."""
    _check_cluster()
    _check_keys(args.open, args.keys)
    from ray import serve

    from serve.gateway import Gateway

    deployment = serve.deployment(
        serve.ingress()(Gateway),
        name="Gateway",
        num_replicas=args.replicas,
        max_ongoing_requests=10_000,  # what waits is bounded at the models
        ray_actor_options={"num_cpus": 0, "label_selector": args.labels},
        max_surge_percent=100,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=args.limits.timeout_s,
    )
    application: Application = deployment.bind(settings=args)  # type: ignore[attr-defined]
    return application


def _check_keys(is_open: bool, file: str | None) -> None:
    """Of the gateway and of every model alike: replicas have ports of their own."""
    from zephyr_ray.serving import keys

    if not is_open and keys.read(file) is None:
        raise UserError(
            f"the endpoint has no API keys; set {keys.VARIABLE}, give the gateway and every model a file of them "
            "(serve/keys.py), or say open: true to each, with an HTTP host on loopback"
        )


def _check_cluster() -> None:
    from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY

    if not RAY_SERVE_ENABLE_HA_PROXY:
        pairs = " ".join(f"{name}={value}" for name, value in FAST_PATH.items())
        raise UserError(f"this Ray cluster was not started for the chat endpoint; start its nodes with {pairs}")
