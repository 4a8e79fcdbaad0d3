"""Trackers are refused before any work where they are not installed, and write offline beside the artifact."""

from __future__ import annotations

import importlib.util

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from zephyr_ray.errors import UserError
from zephyr_ray.training import trackers


def test_a_tracker_that_is_not_installed_is_refused_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"tensorboard"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    trackers.check_trackers("dpo", ["tensorboard"])
    trackers.check_trackers("dpo", [])
    with pytest.raises(UserError, match=r"^dpo\.training\.report_to=wandb: wandb is not installed; pip install wandb"):
        trackers.check_trackers("dpo", ["tensorboard", "wandb"])
    with pytest.raises(
        UserError, match=r"^sft\.training\.report_to=wanb: no such tracker; there are tensorboard, wandb"
    ):
        trackers.check_trackers("sft", ["wanb"])


def test_every_tracker_is_one_of_transformers() -> None:
    assert {*trackers.PACKAGES} <= {*INTEGRATION_TO_CALLBACK}


def test_trackers_write_below_the_folder_and_offline() -> None:
    assert trackers.environment("/run/dpo", {}) == {
        "TENSORBOARD_LOGGING_DIR": "/run/dpo/tensorboard",
        "WANDB_DIR": "/run/dpo",
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": "/run/dpo/trackio",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": "sqlite:////run/dpo/mlflow/mlflow.db",
    }


def test_who_names_a_server_or_a_folder_keeps_it() -> None:
    given = {"WANDB_API_KEY": "k", "MLFLOW_TRACKING_URI": "http://server", "TRACKIO_DIR": "/mine", "OTHER": "x"}
    made = trackers.environment("/run/dpo", given)
    assert "WANDB_MODE" not in made
    assert "MLFLOW_TRACKING_URI" not in made
    assert made["TRACKIO_DIR"] == "/mine"
    assert "OTHER" not in made
