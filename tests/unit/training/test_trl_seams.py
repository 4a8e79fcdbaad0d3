"""The private parts of TRL, transformers and accelerate that training leans on: they are there, as they are used.

Where this fails after a version is raised, the last words of a row say what no longer works; `docs/engine.md` says why
each is used.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import GradientState
from transformers import Trainer
from transformers.trainer_callback import DefaultFlowCallback
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RLOOTrainer, SFTTrainer
from trl.kernels import chunked_logprob
from trl.trainer import dpo_trainer, kto_trainer
from trl.trainer import utils as trl_utils

import zephyr_ray.training

ROOT = Path(zephyr_ray.training.__file__).parent
PUBLIC = {
    "DPOConfig",
    "DPOTrainer",
    "GRPOConfig",
    "GRPOTrainer",
    "KTOConfig",
    "KTOTrainer",
    "RLOOConfig",
    "RLOOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "DataCollatorForPreference",
}
INSIDE = {"packed/logps.py", "trainers/pairs.py"}
"""The files that import what is TRL's own. `packed/steps.py` also reads two of its trainers' attributes."""

CALLED: dict[str, tuple[Any, str, str, str]] = {
    "the fused head": (
        trl_utils,
        "add_fused_lm_head",
        "model temperature cast_lm_head_to_fp32 outputs",
        "packed.logps: a packed row has no log-probs, in training and in the reference stage",
    ),
    "which labels the head leaves out": (
        trl_utils,
        "_use_triton",
        "device",
        "packed.logps: on a GPU each forward pass waits for the number of labels",
    ),
    "the hash of all weights": (
        dpo_trainer,
        "hash_module",
        "module",
        "trainers.pairs: every rank's start takes minutes at 7 billion weights",
    ),
    "the hash of all weights in KTO": (
        kto_trainer,
        "hash_module",
        "module",
        "trainers.pairs: every rank's start takes minutes at 7 billion weights",
    ),
    "the data set in KTO": (
        KTOTrainer,
        "_prepare_dataset",
        "self dataset processing_class args dataset_name",
        "trainers.kto: TRL tokenizes rows that are tokenized",
    ),
    "the reference's log-probs in KTO": (
        KTOTrainer,
        "_precompute_ref_logps",
        "self dataset name batch_size",
        "trainers.kto: TRL computes a reference of its own before the first step",
    ),
    "the data set": (
        DPOTrainer,
        "_prepare_dataset",
        "self dataset processing_class args dataset_name",
        "trainers.pairs: TRL tokenizes rows that are tokenized",
    ),
    "the reference's log-probs": (
        DPOTrainer,
        "_precompute_ref_logps",
        "self dataset name batch_size",
        "trainers.pairs: TRL computes a reference of its own before the first step",
    ),
    "a batch on its way to the device": (
        Trainer,
        "_prepare_input",
        "self data",
        "trl_trainers: DeepSpeed's dtype rounds reference log-probs; packed.steps: a packed row stays on the CPU",
    ),
    "clipping": (
        Trainer,
        "_clip_grad_norm",
        "self model",
        "trl_trainers: under DeepSpeed each step waits for the norm",
    ),
    "the norm of the gradient": (
        Trainer,
        "_get_grad_norm",
        "self model grad_norm",
        "trl_trainers: under DeepSpeed each step waits for the norm",
    ),
    "the whole weights of a checkpoint": (
        Trainer,
        "save_model",
        "self output_dir _internal_call",
        "trl_trainers: under DeepSpeed each checkpoint gathers all weights",
    ),
    "the batches of a step": (
        Trainer,
        "get_batch_samples",
        "self epoch_iterator num_batches device",
        "packed.steps: the next steps are not prepared while one runs",
    ),
    "a micro-batch": (
        Trainer,
        "training_step",
        "self model inputs num_items_in_batch",
        "packed.steps: a step's micro-batches are not summed",
    ),
    "whether gradients are reduced": (
        GradientState,
        "_set_sync_gradients",
        "self sync_gradients",
        "packed.steps: gradients are clipped and reduced at each micro-batch, or never",
    ),
    "whether a step is logged": (
        DefaultFlowCallback,
        "on_step_end",
        "self args state control kwargs",
        "packed.steps: a step that is logged lacks the head's metrics",
    ),
}
for _trainer in (GRPOTrainer, RLOOTrainer):
    CALLED |= {
        f"{_trainer.__name__}'s prompts": (
            _trainer,
            "_tokenize_prompts",
            "self prompts",
            "trainers.on_policy: a message's text may become a control token",
        ),
        f"{_trainer.__name__}'s draw": (
            _trainer,
            "_generate_and_score_completions",
            "self inputs",
            "trainers.on_policy: a training that was interrupted draws other completions",
        ),
        f"{_trainer.__name__}'s micro-batch": (
            _trainer,
            "_prepare_inputs",
            "self generation_batch",
            "trainers.on_policy: prompts are not counted, and a training goes on within another draw",
        ),
    }
SET_BY_INIT = {
    "aux_loss_enabled": "packed.steps: a mixture of experts trains without its load-balancing loss",
    "router_aux_loss_coef": "packed.steps: the load-balancing loss has no weight",
}


@pytest.mark.parametrize("seam", CALLED)
def test_what_is_called_or_replaced_has_its_parameters(seam: str) -> None:
    owner, name, parameters, otherwise = CALLED[seam]
    assert hasattr(owner, name), otherwise
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters.split(), otherwise


@pytest.mark.parametrize("trainer", [DPOTrainer, KTOTrainer, SFTTrainer])
@pytest.mark.parametrize("name", SET_BY_INIT)
def test_a_trainer_sets_what_is_read(trainer: Any, name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(trainer.__init__), SET_BY_INIT[name]


@pytest.mark.parametrize("trainer", [GRPOTrainer, RLOOTrainer])
def test_trl_counts_micro_batches_as_the_plan_does(trainer: Any) -> None:
    draws = inspect.getsource(trainer._prepare_inputs)
    assert "self._step % generate_every == 0 or self._buffered_inputs is None" in draws, "trainers.on_policy: draws"
    for name in ("_step", "_buffered_inputs", "ref_model", "num_generations"):
        assert f"self.{name} = " in inspect.getsource(trainer.__init__), "trainers.on_policy reads it"


def test_trls_kto_trainer_sets_whether_the_kl_term_is_estimated() -> None:
    assert "self.calculate_KL = " in inspect.getsource(KTOTrainer.__init__), "trainers.kto: what prompts meet"


def test_trls_dpo_trainer_sets_whether_pairs_are_weighted() -> None:
    source = inspect.getsource(DPOTrainer.__init__)
    for name in ("use_weighting", "ld_alpha"):
        assert f"self.{name} = " in source, "trainers.dpo: which fields of the head the loss reads; the guard's sums"


def test_the_head_looks_its_switches_up_when_it_is_called() -> None:
    """Both are replaced in their modules."""
    assert isinstance(chunked_logprob.TOKEN_CHUNK_SIZE, int)
    assert inspect.getsource(chunked_logprob).count("range(0, N, TOKEN_CHUNK_SIZE)") == 2  # forward and backward
    assert "_use_triton(" in inspect.getsource(trl_utils.add_fused_lm_head)


def test_the_heads_output_has_the_fields_that_are_read() -> None:
    fields = {field.name for field in dataclasses.fields(trl_utils.FusedCausalLMOutput)}
    assert fields >= {"log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "aux_loss"}


def test_the_hash_is_looked_up_where_it_is_replaced() -> None:
    assert "hash_module(" in inspect.getsource(DPOTrainer.__init__)


@pytest.mark.parametrize("trainer", [DPOTrainer, SFTTrainer])
def test_trls_log_adds_its_own_means_to_those_that_are_there(trainer: Any) -> None:
    """Of a packed step TRL has none."""
    assert "logs.update(metrics)" in inspect.getsource(trainer.log), "packed.steps: metrics are not logged"


def test_two_files_import_what_is_trls_own() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for node in nodes:
            module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
            if module.split(".")[0] == "trl" and not {alias.name for alias in node.names} <= PUBLIC:
                found.add(path.relative_to(ROOT).as_posix())
    assert found == INSIDE
