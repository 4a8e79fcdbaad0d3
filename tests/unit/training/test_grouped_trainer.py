"""DPO on groups, a prompt with all its completions at once, against the same pairs one by one, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from trl import DPOConfig

from tests.oracles.dpo import sequence_logp
from tests.unit.training.read_backs import ReadBacksOfSteps
from tests.unit.training.small_models import make_groups, make_model
from tests.unit.training.trl_options import OPTIONS
from zephyr_ray.config.training import DPO
from zephyr_ray.errors import GuardError
from zephyr_ray.training.dataset import GroupRows, Rows
from zephyr_ray.training.logps import PackedScorer
from zephyr_ray.training.packed.logps import add_fused_lm_head
from zephyr_ray.training.reference_guard import TOLERANCE, FirstStepGuard
from zephyr_ray.training.sampler import Plan
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.dpo import PackedDPOTrainer
from zephyr_ray.training.trainers.groups import GroupedDPOTrainer, collate_groups

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS, BATCH, STEPS = 10, 4, 12
NOT_THE_RUNS = {"epoch", "train_runtime", "num_tokens"}


GROUPS = make_groups(PROMPTS, 1)
PLAN = Plan(PROMPTS, BATCH, epochs=1, seed=0, max_steps=STEPS)


def pairs_of(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The group's pairs, each with a prompt of its own."""
    sides = [[group["completions"][number] for number in group[side]] for side in ("chosen", "rejected")]
    return [
        {"prompt_ids": group["prompt_ids"], "chosen_ids": c, "rejected_ids": r} for c, r in zip(*sides, strict=True)
    ]


PAIRS = [pair for group in GROUPS for pair in pairs_of(group)]
FIRST = np.cumsum([0, *(len(group["chosen"]) for group in GROUPS)])


class OneByOne(Plan):
    """The same steps, each with the pairs of its prompts."""

    def step_rows(self, step: int) -> np.ndarray:
        return np.concatenate([np.arange(FIRST[row], FIRST[row + 1]) for row in PLAN.step_rows(step)])

    def times_seen(self) -> np.ndarray:
        return np.repeat(PLAN.times_seen(), np.diff(FIRST))


@pytest.fixture(scope="module")
def logps() -> list[list[float]]:
    """Those of the model at its start, a little off: rewards are not 0 at the first step."""
    model, noise = make_model("mistral"), np.random.default_rng(0)
    return [
        [sequence_logp(model, group["prompt_ids"], each) + noise.normal() for each in group["completions"]]
        for group in GROUPS
    ]


def arguments(folder: Path, **options: Any) -> DPOConfig:
    settings: dict[str, Any] = {
        **OPTIONS,
        "beta": 0.3,
        "max_length": None,
        "precompute_ref_log_probs": True,
        "max_steps": STEPS,
    }
    return DPOConfig(output_dir=str(folder), **{**settings, **options})


def log_of(trainer: Any) -> list[dict[str, float]]:
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def grouped(folder: Path, tokenizer: Any, logps: list[list[float]], budget: int, best_nll: float = 0, **options: Any):
    table = datasets.Dataset.from_list(GROUPS)
    trainer = GroupedDPOTrainer(
        make_model("mistral"), args=arguments(folder, **options), train_dataset=table, processing_class=tokenizer
    )
    trainer.section = DPO(best_nll=best_nll)
    rows = GroupRows(table, np.arange(PROMPTS), np.array([one for each in logps for one in each], dtype=np.float32))
    trainer.follow(rows, PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), budget, rows.loss_weights()))
    return trainer


def one_by_one(folder: Path, tokenizer: Any, logps: list[list[float]], budget: int, **options: Any):
    table = datasets.Dataset.from_list(PAIRS)
    trainer = PackedDPOTrainer(
        make_model("mistral"), args=arguments(folder, **options), train_dataset=table, processing_class=tokenizer
    )
    sides = {
        f"ref_{side}_logps": np.array([own[at] for group, own in zip(GROUPS, logps, strict=True) for at in group[side]])
        for side in ("chosen", "rejected")
    }
    rows, plan = Rows(table, np.arange(len(PAIRS)), sides), OneByOne(len(PAIRS), BATCH, 1, 0, STEPS)
    trainer.follow(rows, PackedRankPlan(plan, 0, 1, rows.packed_lengths(), budget))
    return trainer


VARIANTS: list[dict[str, Any]] = [
    {},
    {"loss_type": ["sigmoid_norm", "hinge"], "loss_weights": [1.0, 0.3]},
    {"loss_type": ["ipo"]},
    {"loss_type": ["robust"], "label_smoothing": 0.1},
    {"loss_type": ["exo_pair"], "label_smoothing": 0.1},
    {"loss_type": ["sppo_hard", "apo_zero", "nca_pair", "bco_pair", "discopop"], "loss_weights": [0.1] * 5},
    {"f_divergence_type": "js_divergence"},
    {"use_weighting": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_groups_train_as_their_pairs_do(
    tmp_path: Path, tokenizer: Any, logps: list[list[float]], options: dict[str, Any]
) -> None:
    """All that is logged: losses, norms of gradients, rewards, and what the head says of tokens."""
    expected = log_of(one_by_one(tmp_path / "pairs", tokenizer, logps, 10_000, **options))
    for budget in (90, 10_000) if not options else (150,):
        trainer = grouped(tmp_path / str(budget), tokenizer, logps, budget, **options)
        found = log_of(trainer)
        assert len({len(step) for step in trainer.rank_plan}) > 1 or budget == 10_000
        assert set(found[0]) == set(expected[0])
        for name in sorted(set(expected[0]) - NOT_THE_RUNS):
            ours, theirs = ([row[name] for row in log] for log in (found, expected))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_batch_defined_loss_of_one_micro_batch_is_that_of_its_pairs(
    tmp_path: Path, tokenizer: Any, logps: list[list[float]]
) -> None:
    options = {"loss_type": ["aot", "aot_unpaired", "sft"], "loss_weights": [1.0, 1.0, 1.0], "max_steps": 2}
    expected = log_of(one_by_one(tmp_path / "pairs", tokenizer, logps, 10_000, **options))
    found = log_of(grouped(tmp_path / "groups", tokenizer, logps, 10_000, **options))
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in expected], abs=1e-4)


def test_gradients_are_those_of_plain_forward_passes(tmp_path: Path, tokenizer: Any, logps: list[list[float]]) -> None:
    """Equation 7 and the NLL of the best, a sequence at a time, over the first step's pairs."""
    trainer = grouped(tmp_path, tokenizer, logps, 90, best_nll=0.2, max_steps=1, max_grad_norm=1e9, learning_rate=0.0)
    kept: dict[str, torch.Tensor] = {}

    def keep(optimizer: Any, *args: Any) -> None:
        kept.update({name: each.grad.clone() for name, each in trainer.model.named_parameters()})

    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(keep)
    (logged,) = log_of(trainer)

    model, losses = make_model("mistral").train(), []
    for number in PLAN.step_rows(0):
        group, reference = GROUPS[number], logps[number]
        sums, nll = [], []
        for completion in group["completions"]:
            ids = torch.tensor([group["prompt_ids"] + completion])
            each = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            sums.append(each[-len(completion) :].sum())
            nll.append(-each[-len(completion) :].mean())
        best = [each for each in range(len(sums)) if each not in group["rejected"] and each in group["chosen"]]
        for chosen, rejected in zip(group["chosen"], group["rejected"], strict=True):
            margin = 0.3 * ((sums[chosen] - reference[chosen]) - (sums[rejected] - reference[rejected]))
            losses.append(-torch.nn.functional.logsigmoid(margin) + 0.2 * torch.stack([nll[b] for b in best]).mean())
    loss = torch.stack(losses).mean()
    loss.backward()
    assert logged["loss"] == pytest.approx(loss.item(), abs=1e-4)
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(kept[name], weight.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("budget", [90, 10_000])
def test_the_reference_scores_each_completion_once(budget: int) -> None:
    model = make_model("mistral")
    plain = [[sequence_logp(model, each["prompt_ids"], ids) for ids in each["completions"]] for each in GROUPS]
    add_fused_lm_head(model)
    scored = PackedScorer(model, None, budget, "sdpa").completions(GROUPS)
    assert [values.dtype for values in scored] == [np.float32] * PROMPTS
    for ours, expected in zip(scored, plain, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_in_bfloat16_completions_are_as_near_to_float32_as_pairs_are() -> None:
    exact = make_model("mistral")
    narrow = make_model("mistral").bfloat16()
    plain = [sequence_logp(exact, each["prompt_ids"], ids) for each in GROUPS for ids in each["completions"]]
    add_fused_lm_head(narrow)
    scorer = PackedScorer(narrow, None, 300, "sdpa")
    together = np.concatenate(scorer.completions(GROUPS)) - plain
    alone, _ = scorer(
        [
            {"prompt_ids": each["prompt_ids"], "chosen_ids": ids, "rejected_ids": ids}
            for each in GROUPS
            for ids in each["completions"]
        ]
    )
    error, theirs = (float(np.sqrt(np.mean(values**2))) for values in (together, alone - plain))
    assert 0 < error < 1.3 * theirs


@pytest.mark.parametrize("moved", [0.0, 0.02])
def test_the_first_step_is_guarded(tmp_path: Path, tokenizer: Any, moved: float) -> None:
    """Each completion's log-prob is 0.02 nats off: more than roundings in float32 are."""
    model = make_model("mistral")
    exact = [[sequence_logp(model, each["prompt_ids"], ids) for ids in each["completions"]] for each in GROUPS]
    reference = [[value + moved for value in values] for values in exact]
    trainer = grouped(tmp_path, tokenizer, reference, 90, max_steps=1)
    trainer.add_callback(FirstStepGuard(trainer, TOLERANCE["float32"]))
    if moved:
        with pytest.raises(GuardError, match="policy and reference are not the same model"):
            trainer.train()
        return
    (logged,) = log_of(trainer)
    assert logged["loss"] == pytest.approx(np.log(2), abs=1e-5)


def test_a_completion_counts_once_in_the_guard(tmp_path: Path, tokenizer: Any, logps: list[list[float]]) -> None:
    trainer = grouped(tmp_path, tokenizer, logps, 90, max_steps=1)
    trainer.train()
    first = [GROUPS[number] for number in PLAN.step_rows(0)]
    sides = [[len(set(each[side])) for each in first] for side in ("chosen", "rejected")]
    assert trainer.first_step.sums[:, 0].tolist() == [sum(counts) for counts in sides]


def test_a_step_reads_nothing_back(tmp_path: Path, tokenizer: Any, logps: list[list[float]]) -> None:
    trainer = grouped(
        tmp_path, tokenizer, logps, 90, best_nll=0.2, max_steps=4, logging_steps=3, logging_nan_inf_filter=False
    )
    counter = ReadBacksOfSteps()
    trainer.add_callback(counter)
    trainer.train()
    assert [bool(found) for found in counter.steps] == [False, False, True, True], counter.steps


def test_what_is_collated_of_a_group() -> None:
    group = {
        "prompt_ids": [5, 6],
        "completions": [[7], [8, 9], [10, 11, 12]],
        "chosen": [2, 2, 0],
        "rejected": [0, 1, 1],
        "ref_logps": [-1.0, -2.0, -3.0],
    }
    other = {"prompt_ids": [3], "completions": [[4], [4, 4]], "chosen": [1], "rejected": [0], "ref_logps": [-4.0, -5.0]}
    batch = collate_groups([each | {"row": 0, "loss_scale": 0.5} for each in (group, other)])
    assert batch["packed_row"].tokens.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 3, 4, 4, 4]]
    assert batch["pairs"].tolist() == [[2, 2, 0, 4], [0, 1, 1, 3]]
    assert batch["times"].tolist() == [[1, 0, 2, 0, 1], [1, 2, 0, 1, 0]]
    assert batch["best"].tolist() == [0.0, 0.0, 0.25, 0.0, 0.125]  # 3 of 4 pairs by 3 tokens, 1 of 4 by 2
    assert batch["ref_logps"].tolist() == [-1, -2, -3, -4, -5]
    assert (batch["side_tokens"], batch["num_tokens"]) == ([3 + 3 + 1 + 2, 1 + 2 + 2 + 1], 12)
