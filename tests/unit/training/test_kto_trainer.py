"""KTO on packed rows against TRL's own trainer, and its loss against the paper's equation by hand, in float32."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from trl import KTOConfig, KTOTrainer

from tests.unit.training.small_models import make_model, make_unpaired
from tests.unit.training.trl_options import OPTIONS
from zephyr_ray.errors import UserError
from zephyr_ray.training.dataset import UnpairedRows
from zephyr_ray.training.kahneman_tversky import kto_loss
from zephyr_ray.training.logps import PackedScorer, add_fused_lm_head
from zephyr_ray.training.methods import load_recipe
from zephyr_ray.training.methods.kto import KTO, options
from zephyr_ray.training.sampler import Plan, Slot, partners
from zephyr_ray.training.token_batching import PackedRankPlan
from zephyr_ray.training.trainers.kto import PackedKTOTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH = 6
ROWS = make_unpaired(20, 1)  # an epoch of four steps, the last one of two rows
PLAN = Plan(len(ROWS), BATCH, epochs=1, seed=0, max_steps=50)
SECTION = KTO(beta=0.2, undesirable_weight=0.8, global_batch=BATCH)
LONGEST = max(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in ROWS)
LOGGED = (
    "loss",
    "grad_norm",
    "kl",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
    "entropy",
    "num_tokens",
)


class PlainTRL(KTOTrainer):
    """TRL's own trainer, loss and reference. Only its data are ours: it gets a step's rows as one padded batch, with
    the completions for its KL term as its own preparation gives them to a batch."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        steps = [turned([ROWS[row] for row in PLAN.step_rows(step)]) for step in range(self.args.max_steps)]
        ends = np.cumsum([len(step) for step in steps])
        batches = np.split(np.arange(ends[-1]), ends[:-1])
        rows: Any = list(itertools.chain(*steps))
        return torch.utils.data.DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)


def turned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """(x_1, y_1), ..., (x_n, y_n) -> (x_1, y_n), (x_2, y_1), ..., (x_n, y_{n-1}), as in TRL's `_prepare_dataset`."""
    completions = [row["completion_ids"] for row in rows]
    others = [completions[-1], *completions[:-1]]
    return [row | {"KL_completion_ids": other} for row, other in zip(rows, others, strict=True)]


def run_trl(folder: Path, tokenizer: Any, section: KTO, steps: int) -> list[dict[str, float]]:
    args = KTOConfig(str(folder), **OPTIONS, max_steps=steps, **options(section) | {"precompute_ref_log_probs": False})
    args.max_length = LONGEST
    trainer = PlainTRL(
        model=make_model("mistral"),
        ref_model=make_model("mistral"),
        args=args,
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    trainer.train()
    return [row for row in trainer.state.log_history if "loss" in row]


def referenced(section: KTO) -> UnpairedRows:
    """The rows with the log-probs that the stage writes."""
    table, order = datasets.Dataset.from_list(ROWS), np.arange(len(ROWS))
    rows, model = UnpairedRows(table, order), make_model("mistral")
    add_fused_lm_head(model)
    scorer = PackedScorer(model, None, 200, "sdpa")

    def score(completions: list[list[int]]) -> np.ndarray:
        pairs = zip(ROWS, completions, strict=True)
        return np.concatenate(
            scorer.completions([{"prompt_ids": row["prompt_ids"], "completions": [ids]} for row, ids in pairs])
        )

    met: Any = partners(PLAN) if section.meets_others else []
    of_others = [
        score([rows.met_by(row["prompt_ids"], at) for row, at in zip(ROWS, each, strict=True)]) for each in met
    ]
    return UnpairedRows(table, order, score([row["completion_ids"] for row in ROWS]), np.array(of_others))


def run_packed(folder: Path, tokenizer: Any, section: KTO, budget: int, steps: int) -> list[dict[str, float]]:
    rows = referenced(section)
    args = KTOConfig(str(folder), **OPTIONS, max_steps=steps, **options(section))
    trainer: Any = PackedKTOTrainer(
        make_model("mistral"), args=args, train_dataset=rows.table, processing_class=tokenizer
    )
    trainer.section = section
    trainer.follow(rows, PackedRankPlan(PLAN, 0, 1, rows.packed_lengths(), budget))
    trainer.train()
    assert trainer.seen.sum() == sum(len(PLAN.step_rows(step)) for step in range(steps))
    return [row for row in trainer.state.log_history if "loss" in row]


def check_equal(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs)
    for name in LOGGED:
        logged = [step for step, row in enumerate(theirs) if name in row]  # TRL logs nothing of a label without a row
        assert len(logged) > len(theirs) / 2
        ours_of_them, theirs_of_them = ([run[step][name] for step in logged] for run in (ours, theirs))
        np.testing.assert_allclose(ours_of_them, theirs_of_them, rtol=1e-4, atol=1e-4, err_msg=name)


def test_fifty_steps_equal_trls(tmp_path: Path, tokenizer: Any) -> None:
    """In TRL a step is one micro-batch; here it is several, or one."""
    section = SECTION.model_copy(update={"desirable_weight": 1.5})
    theirs = run_trl(tmp_path / "trl", tokenizer, section, 50)
    ours = run_packed(tmp_path / "ours", tokenizer, section, 60, 50)
    check_equal(ours, theirs)
    assert sum(row["kl"] > 0.1 for row in ours) > 10
    check_equal(run_packed(tmp_path / "one", tokenizer, section, 1000, 5), theirs[:5])


def test_without_the_kl_term_it_is_trls_unpaired_apo(tmp_path: Path, tokenizer: Any) -> None:
    section = SECTION.model_copy(update={"loss_type": "apo_zero_unpaired"})
    theirs = run_trl(tmp_path / "trl", tokenizer, section, 5)
    check_equal(run_packed(tmp_path / "ours", tokenizer, section, 60, 5), theirs)
    assert [row["kl"] for row in theirs] == [0] * 5


def test_the_loss_by_hand() -> None:
    """With beta 0.5 and z0 = 2, r = 4, 0 and 2 nats are +1, -1 and 0 from it: sigmoid(1) is 0.731059."""
    ratios: Any = torch.tensor([4.0, 0.0, 4.0, 2.0], requires_grad=True)
    desirable = torch.tensor([True, True, False, False])
    losses = kto_loss(ratios, desirable, torch.tensor(2.0), 0.5, 2.0, 3.0)
    right, wrong = 0.731059, 0.268941
    assert losses.tolist() == pytest.approx([2 * (1 - right), 2 * (1 - wrong), 3 * (1 - wrong), 3 * 0.5], abs=1e-5)
    losses.sum().backward()
    slope = 0.5 * right * wrong  # beta sigmoid'(1): a better answer lowers its loss, a worse one's likelihood raises it
    assert ratios.grad.tolist() == pytest.approx([-2 * slope, -2 * slope, 3 * slope, 3 * 0.5 / 4], abs=1e-5)
    assert kto_loss(torch.zeros(2), desirable[1:3], torch.tensor(0.0), 0.1, 1.0, 1.0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("kto.global_batch=1", r"global_batch=1: the KL term .* set it to 2 or more"),
        ("kto.training.engine=padded", r"training\.engine=padded: kto trains on packed rows only"),
        ("kto.loss_type=dpo", r"kto\.loss_type.*'kto' or 'apo_zero_unpaired'"),
        ("kto.beta=0", r"kto\.beta"),
    ],
)
def test_what_is_wrong_is_refused_by_name(given: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_recipe([], ["kto={}", given])
    load_recipe([], ["kto={global_batch: 1, loss_type: apo_zero_unpaired}"])


def test_a_prompt_meets_the_completion_before_it_in_its_step() -> None:
    plan = Plan(5, 2, epochs=1.2, seed=3)
    met = partners(plan)
    assert met.shape == (2, 5)
    for step in range(6):
        rows = plan.step_rows(step).tolist()
        assert met[step // 3, rows].tolist() == [rows[-1], *rows[:-1]]
    rows = UnpairedRows(
        datasets.Dataset.from_list(ROWS), np.arange(len(ROWS)), np.zeros(len(ROWS)), np.full((13, len(ROWS)), -3.0)
    )
    rows.partners = partners(PLAN)
    row, other = PLAN.step_rows(5)[:2].tolist()[::-1]
    found = rows[Slot(row, 1.0, epoch=1)]
    assert found["kl_ids"] == ROWS[other]["completion_ids"][: LONGEST - len(ROWS[row]["prompt_ids"])]
    assert found["ref_kl_logps"] == -3.0
    assert rows.lengths_with_partners()[1, row] == max(
        len(found["prompt_ids"]) + len(found[name]) for name in ("kl_ids", "completion_ids")
    )
