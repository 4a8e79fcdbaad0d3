"""A model to be served: which fields and engine options are refused, and what goes to the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.data.test_tokenized import finish
from zephyr_ray.config.serving import REFUSED
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.serving import model_spec
from zephyr_ray.serving.model_spec import (
    ServedModel,
    _adapter_options,
    _runtime_env,
    checkpoint_of_run,
    trained_stage,
)
from zephyr_ray.training.methods import methods


def adapter(folder: Path, rank: Any, *, weights: bool = True) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    if weights:
        (folder / "adapter_model.safetensors").touch()
    return str(folder)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "give either run or path"),
        ({"run": "r", "path": "p"}, "give either run or path"),
        ({"path": "p", "stage": "dpo"}, "stage goes with run"),
        ({"path": "p", "max_replicas": 0}, "max_replicas"),
        ({"path": "p", "min_replicas": -1}, "min_replicas"),
        ({"path": "p", "min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is below min_replicas=3"),
        ({"path": "p", "adapters": {"m": "a"}}, "an adapter has the model's own name"),
        ({"path": "p", "name": "a b"}, "name"),
        ({"path": "p", "name": "a/b"}, "name"),
        ({"path": "p", "name": "a\n"}, "name"),
        ({"path": "p", "name": "a" * 97}, "name"),
        ({"path": "p", "kv_cache_gib": float("nan")}, "kv_cache_gib"),
        ({"path": "p", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_model_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServedModel(**{"name": "m", **fields})


@pytest.mark.parametrize("option", sorted(REFUSED))
def test_an_engine_option_that_would_undo_a_promise_is_refused(option: str) -> None:
    with pytest.raises(ValidationError, match=f"engine.{option} cannot be set"):
        ServedModel(name="m", path="p", engine={"enforce_eager": True, option: 1})


def test_the_names_are_the_models_and_its_adapters() -> None:
    assert ServedModel(name="m", path="p", adapters={"a": "x", "b": "y"}).names == ["m", "a", "b"]


def test_memory_for_keys_and_values_is_set_on_a_cpu_alone() -> None:
    cpu = ServedModel(name="m", path="p", accelerator="cpu", kv_cache_gib=2)
    assert _runtime_env(cpu)["env_vars"]["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert "VLLM_CPU_KVCACHE_SPACE" not in _runtime_env(ServedModel(name="m", path="p"))["env_vars"]


@pytest.mark.parametrize(("ranks", "room"), [((8,), 8), ((9,), 16), ((4, 64), 64), ((512,), 512)])
def test_there_is_room_for_the_largest_adapter(tmp_path: Path, ranks: tuple[int, ...], room: int) -> None:
    adapters = {f"a{rank}": adapter(tmp_path / f"a{rank}", rank) for rank in ranks}
    options = _adapter_options(ServedModel(name="m", path="p", adapters=adapters))
    assert (options["max_lora_rank"], options["max_loras"], options["enable_lora"]) == (
        room,
        len(ranks),
        True,
    )
    assert options["lora_modules"] == [
        {"name": name, "path": folder, "base_model_name": "m"} for name, folder in adapters.items()
    ]


def test_without_adapters_there_are_no_options_of_them() -> None:
    assert _adapter_options(ServedModel(name="m", path="p")) == {}


@pytest.mark.parametrize(
    ("rank", "weights", "says"),
    [
        (8, False, "adapter_model.safetensors"),
        (0, True, "rank 0"),
        (513, True, "rank 513"),
        (None, True, "no adapter_"),
    ],
)
def test_a_folder_that_is_no_adapter_is_a_users_error(tmp_path: Path, rank: Any, weights: bool, says: str) -> None:
    folder = adapter(tmp_path / "a", rank, weights=weights)
    with pytest.raises(UserError, match=says):
        _adapter_options(ServedModel(name="m", path="p", adapters={"a": folder}))


def test_a_run_without_a_finished_stage_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no finished sft stage"):
        checkpoint_of_run(str(tmp_path), "sft")
    with pytest.raises(UserError, match="has no finished checkpoint"):
        checkpoint_of_run(str(tmp_path))


def test_the_model_of_the_last_round_is_served(tmp_path: Path) -> None:
    run = Run(str(tmp_path))
    for stage in ("sft", "dpo", "round_2/dpo", "round_10/dpo"):
        finish(run.artifact(stage), {})
        assert trained_stage(str(tmp_path)) == stage
    (tmp_path / "round_11" / "candidates").mkdir(parents=True)  # a round that has trained nothing yet
    assert trained_stage(str(tmp_path)) == "round_10/dpo"
    assert checkpoint_of_run(str(tmp_path), "round_2/dpo").path == str(tmp_path / "round_2" / "dpo" / "checkpoint")


@pytest.mark.parametrize("method", [name for name, each in methods().items() if not each.makes_reward_model])
def test_what_any_method_has_aligned_is_served_before_what_it_started_from(tmp_path: Path, method: str) -> None:
    for stage in ("sft", method):
        finish(Run(str(tmp_path)).artifact(stage), {})
    assert trained_stage(str(tmp_path)) == method


def test_the_last_trained_model_of_a_run_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_spec, "_trained_last_first", lambda run: [["dpo", "simpo"], ["sft"]])
    for stage, served in (("sft", "sft"), ("dpo", "dpo")):
        finish(Run(str(tmp_path)).artifact(stage), {})
        assert checkpoint_of_run(str(tmp_path)).path == str(tmp_path / served / "checkpoint")
    finish(Run(str(tmp_path)).artifact("simpo"), {})
    with pytest.raises(UserError, match="has 2 trained models; say which with stage: dpo, simpo"):
        checkpoint_of_run(str(tmp_path))
    assert checkpoint_of_run(str(tmp_path), "simpo").path == str(tmp_path / "simpo" / "checkpoint")
