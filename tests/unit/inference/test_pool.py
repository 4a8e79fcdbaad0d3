"""Who a member of a pool is: what replies that were paid for are known by."""

from __future__ import annotations

from typing import Any

import pytest

from zephyr_ray.config.feedback import Deployment, Endpoint
from zephyr_ray.inference.pool import _member_identity
from zephyr_ray.serving.stage_deployments import Application


def endpoint(**fields: Any) -> str:
    return _member_identity(
        Endpoint(**{"type": "endpoint", "name": "a", "base_url": "http://h/v1", "model": "m", **fields}), {}
    )


def deployment(weights: str = "weights", **fields: Any) -> str:
    member = Deployment(**{"type": "deployment", "name": "a", "model": "sft", **fields})
    return _member_identity(member, {"a": Application(f"candidates-a-{weights}", weights)})


def test_it_does_not_change_with_the_version() -> None:
    assert endpoint() == "681cca172e52f418ecdd6f11b99d7583"
    assert deployment() == "ec6aced4295387bf6e1b5ede47d0bd27"


@pytest.mark.parametrize(
    "fields", [{"base_url": "https://elsewhere/v1"}, {"max_in_flight": 1}, {"price": {"input": 1, "output": 1}}]
)
def test_an_endpoint_is_the_same_wherever_it_is(fields: dict[str, Any]) -> None:
    assert endpoint(**fields) == endpoint()


@pytest.mark.parametrize("fields", [{"name": "b"}, {"model": "n"}])
def test_another_endpoint(fields: dict[str, Any]) -> None:
    assert endpoint(**fields) != endpoint()


@pytest.mark.parametrize("fields", [{"model": "/models/sft"}, {"max_replicas": 2}, {"labels": {"group": "a"}}])
def test_a_deployment_is_the_same_wherever_it_runs(fields: dict[str, Any]) -> None:
    assert deployment(**fields) == deployment()


@pytest.mark.parametrize(
    "fields",
    [{"weights": "trained further"}, {"dtype": "float32"}, {"max_model_len": 64}, {"engine": {"quantization": "fp8"}}],
)
def test_a_deployment_that_may_answer_otherwise(fields: dict[str, Any]) -> None:
    assert deployment(**fields) != deployment()
