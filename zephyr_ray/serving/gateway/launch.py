"""Starts the chat endpoint on Ray, or on the cluster of RAY_ADDRESS, and keeps it up until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zephyr_ray.errors import UserError
from zephyr_ray.serving.gateway.options import (
    EndpointOptions,
    check_address,
    gateway_settings,
    model_application,
    served_models,
)

if TYPE_CHECKING:
    from zephyr_ray.serving.gateway.settings import GatewaySettings, ModelApplication

_CAUSE = 400  # characters of it in an error


def serve_until_stopped(options: EndpointOptions) -> None:
    """Deploys the models and the gateway, and waits.

    Raises:
        UserError: Something that was asked for cannot be.
        KeyboardInterrupt: Ctrl-C, or SIGTERM.
    """
    from zephyr_ray.cluster import preflight
    from zephyr_ray.cluster.ports import free_port

    _take_signals()
    check_address(options)
    preflight.check_driver()
    found = served_models(options)
    applications = [model_application(options, each) for each in found]
    settings = gateway_settings(options, found)

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


def _take_signals() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a container's stop is a Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started it in the background


def _run(options: EndpointOptions, applications: list[ModelApplication], settings: GatewaySettings) -> None:
    """Deploys, and waits for Ctrl-C."""
    import ray
    from ray import serve
    from ray.exceptions import RayError, RayTaskError

    from zephyr_ray.cluster import connect

    try:
        serve.start(http_options={"host": options.host, "port": options.port})
    except RayError as error:  # an actor of Ray Serve that died or did not answer, most likely on a busy machine
        raise UserError(f"Ray Serve did not start: {_cause(str(error))} (more in {_logs()}); try again") from None
    print(f"loading {', '.join(map(_named, applications))} ...", flush=True)
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


def _named(application: ModelApplication) -> str:
    """A model as a person knows it: of a run with the stage that made it."""
    return f"{application.name} ({application.stage})" if application.stage else application.name


def _deploy(applications: list[ModelApplication], settings: GatewaySettings) -> None:
    """Runs in a worker, until all applications are up.

    Raises:
        UserError: One of them cannot be.
        RuntimeError: One of them failed.
    """
    import ray
    from ray import serve

    from zephyr_ray.serving.applications import chat, model

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


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """The cluster of RAY_ADDRESS, or one on this machine while the endpoint is up."""
    from zephyr_ray.cluster import connect, preload

    if connect.is_joined():
        import ray

        with ray.init():
            yield
    else:
        with connect.started(preload.SERVING, log_to_driver=False, logging_level=logging.ERROR):
            yield
