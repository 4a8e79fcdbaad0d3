"""The builders that a Ray Serve config names by import path: one application for each model, and the gateway's.

import_path: zephyr_ray.serving.applications:model      # args: ModelApplication
import_path: zephyr_ray.serving.applications:chat       # args: GatewaySettings
"""

# No `from __future__ import annotations` here: Ray Serve reads the class of `args` off the builders' annotations.
from ray.serve import Application

from zephyr_ray.cluster.connect import FAST_PATH
from zephyr_ray.errors import UserError
from zephyr_ray.serving.gateway.settings import GatewaySettings, ModelApplication
from zephyr_ray.serving.model_spec import ServedModel


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

    from zephyr_ray.serving.gateway.app import Gateway

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
            "(zephyr-ray keys), or say open: true to each, with an HTTP host on loopback"
        )


def _check_cluster() -> None:
    from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY

    if not RAY_SERVE_ENABLE_HA_PROXY:
        pairs = " ".join(f"{name}={value}" for name, value in FAST_PATH.items())
        raise UserError(f"this Ray cluster was not started for the chat endpoint; start its nodes with {pairs}")
