"""The example config of `serve deploy`."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray.serve.schema import ServeDeploySchema

from zephyr_ray.serving.gateway.settings import GatewaySettings, ModelApplication

CONFIG = Path(__file__).resolve().parents[4] / "serve" / "config.yaml"


def test_the_config_is_one_that_serve_deploy_takes() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    *models, gateway = config.applications
    assert (gateway.import_path, gateway.route_prefix) == ("zephyr_ray.serving.applications:chat", "/")
    settings = GatewaySettings(**gateway.args)
    assert not settings.open  # it listens on every interface
    for each in models:
        model = ModelApplication(**each.args)
        assert (each.import_path, each.route_prefix) == ("zephyr_ray.serving.applications:model", None)
        # The gateway finds a model by the name of its application.
        assert each.name == model.name
    assert {each.name for each in models} == set(settings.models)
