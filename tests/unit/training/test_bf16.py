"""DPO in bfloat16: policy and reference are computed alike under every ZeRO stage, engine and adapter.

Reference log-probs are the reference stage's own, computed in other rows than training's; training is the stage's own
trainer, on a model that was stored and is loaded again, in two processes.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.trainer_utils import SaveStrategy

from tests.making import stage_of
from tests.unit.training.bf16_workers import Way, make_folder, recipe_of, trainer_of, worker
from tests.unit.training.packed_workers import start

RECOMPUTING = ("dpo.training.gradient_checkpointing=true",)
# Padded log-probs in bfloat16 depend on how far a batch is padded: here every one is to the same length.
ONE_LENGTH = ("dpo.training.trl.pad_to_multiple_of=192",)
FIRST_RECOMPUTES = ("dpo.training.gradient_checkpointing=1",)
MATRIX = [
    Way(stage, engine, lora, options=ONE_LENGTH if engine == "padded" else ())
    for stage, engine, lora in itertools.product(range(4), ("packed", "padded"), (False, True))
]
IN_FLOAT32 = [Way(0, dtype="float32"), Way(3, dtype="float32")]
PLAIN = [MATRIX[0], Way(3, "padded", options=ONE_LENGTH), IN_FLOAT32[1]]  # the trainer's; test_layers has the rest
RECOMPUTED = [way._replace(options=(*way.options, *FIRST_RECOMPUTES)) for way in PLAIN]
OTHERS = [
    *IN_FLOAT32,
    *RECOMPUTED,
    Way(3, family="gemma", options=RECOMPUTING),  # tied weights
    Way(3, lora=True, options=RECOMPUTING),
    Way(0, family="gemma"),
    Way(0, family="mixtral"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: make_folder(folder, family) for family in ("mistral", "gemma", "mixtral")}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, models: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    start(worker, 2, (*MATRIX, *OTHERS), models, str(folder))
    return folder


@pytest.fixture(scope="module")
def runs(written: Path) -> dict[Way, dict[str, Any]]:
    return {way: json.loads((written / f"{way.name}.json").read_text()) for way in (*MATRIX, *OTHERS)}


@pytest.mark.parametrize("way", [*MATRIX, *OTHERS], ids=lambda way: way.name)
def test_the_first_loss_is_ln_2(runs: dict[Way, dict[str, Any]], way: Way) -> None:
    first = runs[way]["log"][0]
    loss = first["loss"] - (1e-3 * first["aux_loss"] if "aux_loss" in first else 0)
    assert abs(loss - math.log(2)) < (1e-6 if way.dtype == "float32" else 1e-5)
    assert abs(first["rewards/margins"]) < (1e-5 if way.dtype == "float32" else 1e-4)
    assert first["grad_norm"] > 0.1


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_every_zero_stage_trains_alike(runs: dict[Way, dict[str, Any]], engine: str, lora: bool) -> None:
    plain, *sharded = ([row["loss"] for row in runs[way]["log"]] for way in MATRIX if way[1:3] == (engine, lora))
    assert plain[1] < 0.68  # it learns
    assert [losses[1] for losses in sharded] == pytest.approx([sharded[0][1]] * 3, abs=5e-3)
    assert plain[1] == pytest.approx(sharded[0][1], abs=3e-2)  # other weights in its forward pass


@pytest.mark.parametrize("number", range(len(PLAIN)), ids=lambda number: PLAIN[number].name)
def test_a_layer_that_recomputes_changes_nothing(runs: dict[Way, dict[str, Any]], number: int) -> None:
    for name in ("loss", "grad_norm"):
        before, after = ([row[name] for row in runs[ways[number]]["log"]] for ways in (PLAIN, RECOMPUTED))
        assert after == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("lora", [False, True])
def test_what_is_trained_without_deepspeed_is_float32(runs: dict[Way, dict[str, Any]], lora: bool) -> None:
    assert runs[Way(0, lora=lora)]["weights"] == ["torch.float32"]


def test_a_quantized_models_adapter_moves_as_in_float32(tmp_path: Path) -> None:
    """50 steps of 5e-6: in bfloat16 weights most would never move."""
    model, moved = make_folder(tmp_path, "mistral", hidden_size=64, intermediate_size=128), []
    for dtype in ("float32", "bfloat16"):
        options = ("model.lora.load_in_4bit=true", "dpo.learning_rate=5e-6", "dpo.max_steps=50", "dpo.global_batch=3")
        trainer = trainer_of(Way(0, lora=True, dtype=dtype, options=options), model, str(tmp_path))
        weights = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.train()
        assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
        for kind in ("lora_A", "lora_B"):
            moves = [(weight.detach() - before[name]).abs().mean() for name, weight in weights.items() if kind in name]
            moved.append(float(torch.stack(moves).mean()))
    assert moved[2:] == pytest.approx(moved[:2], rel=0.01)


def test_gradients_of_micro_batches_are_summed_in_float32(written: Path) -> None:
    """300 times 1/128. In bfloat16 the sum would stay at 2, where 1/128 more is rounded away."""
    for rank in range(2):
        sums = json.loads((written / f"sums-{rank}.json").read_text())
        assert sums == dict.fromkeys(("1", "2", "3"), pytest.approx(300 / 128, abs=1e-6))


def arithmetic_of(*overrides: str, **way: Any) -> Any:
    return stage_of(recipe_of(Way(**{"zero_stage": 0, "options": overrides} | way), "model"), "reference_logps").config


def test_another_arithmetic_makes_references_stale() -> None:
    plain, sharded = arithmetic_of(), arithmetic_of(zero_stage=1)
    assert plain["arithmetic"] == {
        "dtype": "bfloat16",
        "weights": "float32",
        "autocast": True,
        "device": "cpu",
        "engine": "packed",
        "attention": "sdpa",
    }
    assert sharded["arithmetic"] == plain["arithmetic"] | {"weights": "bfloat16", "autocast": False}
    assert arithmetic_of(zero_stage=2) == arithmetic_of(zero_stage=3) == sharded
    changes = [
        arithmetic_of(dtype="float32"),
        arithmetic_of(engine="padded"),
        arithmetic_of(lora=True),
        arithmetic_of("dpo.training.packed_attention=flex"),
        arithmetic_of("reference_logps.gpus_per_worker=1"),
        arithmetic_of("model.lora.load_in_4bit=true"),
        arithmetic_of("dpo.training.compile=true"),
    ]
    assert all(change not in (plain, sharded) for change in changes)
    assert arithmetic_of(*ONE_LENGTH, engine="padded") != arithmetic_of(engine="padded")


def test_auto_is_the_dtype_that_training_will_have() -> None:
    cpu, gpu = arithmetic_of(dtype="auto"), arithmetic_of("dpo.training.gpus_per_worker=1", dtype="auto")
    assert (cpu["arithmetic"], gpu["arithmetic"]["dtype"]) == ({"dtype": "float32"}, "bfloat16")


def test_in_float32_every_way_is_the_same_experiment() -> None:
    changes = [arithmetic_of(zero_stage=3, dtype="float32"), arithmetic_of(engine="padded", dtype="float32")]
    assert all(change == arithmetic_of(dtype="float32") for change in changes)
