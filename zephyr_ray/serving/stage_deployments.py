"""Deployments of a stage on Ray Serve, which run as long as the stage does.

They are deleted however the stage ends; those that a killed job left are replaced by the stage's next run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zephyr_ray.cluster import connect
from zephyr_ray.config.feedback import Deployment
from zephyr_ray.config.serving import ServedOnVllm
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.pipeline.fingerprints import content_id

if TYPE_CHECKING:
    from zephyr_ray.serving.model_spec import ServedModel

# A model constrained to JSON may write line feeds, which JSON allows, up to the length limit.
_ENGINE = {"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True}}


@dataclass(frozen=True)
class Application:
    """A deployment on Ray Serve."""

    name: str
    fingerprint: str
    """The model's fingerprint (`model_source.ModelSource`)."""


@contextlib.contextmanager
def deployed(
    stage: str, deployments: Sequence[Deployment], run: Run, own: Mapping[str, str]
) -> Iterator[dict[str, Application]]:
    """Starts the deployments, waits until all are ready, and yields their applications by name.

    Serve is started without an HTTP proxy, and is shut down afterwards if it was started here.

    Args:
        stage: The stage's name.
        deployments: The deployments to start.
        run: The run whose checkpoints may be deployed.
        own: The names of the stages that make them, by the model that a deployment names.

    Raises:
        UserError: A model is missing, or its engine does not start.
    """
    if not deployments:
        yield {}
        return
    from ray import serve

    prefix = stage.replace("/", "-")
    names = {each.name: f"{prefix}-{each.name}-{content_id(run.root)[:8]}" for each in deployments}
    was_running = _is_running()
    if not was_running:
        serve.start(proxy_location="Disabled")
    try:
        yield {each.name: _start(names[each.name], served_model(each, run, own)) for each in deployments}
    finally:
        for name in names.values():
            serve.delete(name)
        if not was_running:
            serve.shutdown()


def served_model(deployment: Deployment, run: Run, own: Mapping[str, str]) -> ServedModel:
    """The specification of the model that a deployment serves."""
    from zephyr_ray.serving.model_spec import ServedModel

    is_own = deployment.model in own
    place = {"run": run.root, "stage": own[deployment.model]} if is_own else {"path": deployment.model}
    fields = {name: getattr(deployment, name) for name in ServedOnVllm.model_fields}
    changed = {"engine": _ENGINE | deployment.engine, "labels": connect.selector(deployment.labels), "drain_s": 10}
    return ServedModel.model_validate({**fields, **changed, **place} | ({"revision": None} if is_own else {}))


def _start(name: str, model: ServedModel) -> Application:
    from ray import serve
    from ray.serve.llm import build_llm_deployment

    from zephyr_ray.serving.model_spec import llm_config
    from zephyr_ray.serving.stage_replica import StageReplica

    config = llm_config(model)
    try:
        serve.run(build_llm_deployment(config, deployment_cls=StageReplica), name=name, route_prefix=None)
    except RuntimeError as error:
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        raise UserError(f"{model.name} does not start ({''.join(last)[:300]}); its log is in this job's") from None
    return Application(name, config.engine_kwargs["fingerprint_value"])


def _is_running() -> bool:
    from ray.serve.context import _get_global_client
    from ray.serve.exceptions import RayServeException

    try:
        return _get_global_client(raise_if_no_controller_running=True) is not None
    except RayServeException:
        return False
