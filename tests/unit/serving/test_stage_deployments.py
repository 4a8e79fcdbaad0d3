"""What a stage deploys is what its recipe says of the model, and where this run or the world has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zephyr_ray.config.feedback import Deployment
from zephyr_ray.config.serving import ServedOnVllm
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.serving import stage_deployments
from zephyr_ray.serving.stage_deployments import served_model

GIVEN: dict[str, Any] = {
    "name": "a",
    "revision": "v1",
    "dtype": "float32",
    "max_model_len": 64,
    "engine": {"max_num_seqs": 4},
    "accelerator": "cpu",
    "kv_cache_gib": 3,
    "min_replicas": 2,
    "max_replicas": 5,
    "labels": {"group": "inference"},
}


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("sft", {"run": "RUN", "stage": "round_2/sft", "path": None, "revision": None}),
        ("owner/name", {"run": None, "stage": None, "path": "owner/name", "revision": "v1"}),
    ],
)
def test_every_field_that_both_have_is_passed_on(
    model: str, place: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_deployments.connect, "selector", dict)
    assert GIVEN.keys() == ServedOnVllm.model_fields.keys()
    deployment = Deployment(type="deployment", model=model, **GIVEN)
    served = served_model(deployment, Run(str(tmp_path)), {"sft": "round_2/sft"})
    expected = GIVEN | place | ({"run": str(tmp_path)} if place["run"] else {})
    engine = expected.pop("engine")
    assert {name: getattr(served, name) for name in expected} == expected
    assert served.engine.items() > engine.items()
