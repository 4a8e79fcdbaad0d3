"""The guard of DPO's first step lets every right run pass and refuses every wrong one, with a line for the user."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.unit.training.bf16_workers import PAIRS, Way, make_folder, recipe_of, references, trainer_of
from tests.unit.training.flex_on_cpu import compiled_flex
from tests.unit.training.small_models import VOCAB, make_model
from zephyr_ray.errors import GuardError, UserError
from zephyr_ray.pipeline.model_source import ModelSource
from zephyr_ray.training.logps import PackedScorer
from zephyr_ray.training.packed import attention, backend
from zephyr_ray.training.packed.blocks import BLOCK
from zephyr_ray.training.reference_guard import TOLERANCE, FirstStep, FirstStepGuard, refusal

pytestmark = pytest.mark.usefixtures("one_thread")

Columns = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    families = ("mistral", "mistral_window", "gemma2", "mixtral", "qwen2_moe")
    made = {family: make_folder(folder, family) for family in families}
    other = tmp_path_factory.mktemp("other")
    return made | {
        "another seed": make_folder(other, "mistral", seed=1),
        "dropout": make_folder(other, "llama", attention_dropout=0.1),
    }


def first_step(
    folders: dict[str, str],
    tmp_path: Path,
    way: Way,
    reference: Columns | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Any:
    """One step of the stage's own trainer, by default with the reference stage's own log-probs.

    Of several workers it is one, which judges its own share as if it were the whole.
    """
    trainer = trainer_of(way, folders[way.family], str(tmp_path), rank, world_size, reference=reference)
    trainer.args.save_strategy = "no"
    trainer.train()
    return trainer


ONE = ("dpo.max_steps=1",)
RIGHT = {
    "float32": Way(0, dtype="float32", options=ONE),
    "bfloat16": Way(0, options=ONE),
    "bfloat16, padded to other lengths": Way(0, "padded", options=ONE),
    "bfloat16, pairs alone": Way(0, options=(*ONE, "dpo.training.tokens_per_micro_batch=1")),
    "an adapter, padded": Way(0, "padded", lora=True, options=ONE),
    "an adapter with dropout": Way(0, lora=True, options=(*ONE, "model.lora.dropout=0.1")),
    "recomputing": Way(0, options=(*ONE, "dpo.training.gradient_checkpointing=true")),
    "a mixture of experts": Way(0, dtype="float32", family="mixtral", options=ONE),
    "a mixture of experts in bfloat16": Way(0, family="qwen2_moe", options=ONE),
    "windows and capped scores": Way(0, family="gemma2", options=ONE),
    "windows and capped scores, padded": Way(
        0, "padded", family="gemma2", options=(*ONE, "model.attn_implementation=eager")
    ),
    "a loss weight": Way(0, options=(*ONE, "dpo.loss_weights=[0.5]")),
    "two losses": Way(0, options=(*ONE, "dpo.loss_type=[sigmoid, sft]", "dpo.loss_weights=[1, 0.2]")),
    "WPO": Way(0, options=(*ONE, "dpo.training.trl.use_weighting=true")),
    "IPO": Way(0, options=(*ONE, "dpo.loss_type=ipo", "dpo.beta=0.01")),
    "exo_pair": Way(0, options=(*ONE, "dpo.loss_type=exo_pair", "dpo.label_smoothing=0.1")),
    "LD-DPO": Way(0, dtype="float32", options=(*ONE, "dpo.training.trl.ld_alpha=0.5")),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_run_passes(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    trainer = first_step(folders, tmp_path, RIGHT[name])
    assert trainer.state.global_step == 1
    assert trainer.first_step.sums[:, 0].tolist() == [len(PAIRS)] * 2


FLEX = {
    "as the reference": (Way(0, options=ONE), 1),
    "in longer rows": (Way(0, options=(*ONE, "dpo.training.tokens_per_micro_batch=2000")), 1),
    "on two workers": (Way(0, options=(*ONE, "dpo.training.tokens_per_micro_batch=700")), 2),
    "with a window": (Way(0, family="mistral_window", options=(*ONE, "dpo.training.tokens_per_micro_batch=1200")), 1),
}


@pytest.mark.parametrize("name", FLEX)
def test_a_right_run_of_compiled_flex_attention_passes(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In bfloat16, where pairs start at a block's border, in other rows than the reference's."""
    monkeypatch.setattr(backend, "choose_backend", lambda wanted, device: "flex")
    monkeypatch.setattr(attention, "_plain_flex", lambda: compiled_flex)
    way, workers = FLEX[name]
    source = ModelSource(folders[way.family])
    reference = references(recipe_of(Way(0, family=way.family), source.path), source)
    judged = torch.zeros(2, dtype=torch.float64)
    for rank in range(workers):
        trainer = first_step(folders, tmp_path, way, reference, rank, workers)
        assert trainer.backend == "flex"
        assert trainer.align == BLOCK
        assert trainer.state.global_step == 1
        judged += trainer.first_step.sums[:, 0]
    assert judged.tolist() == [len(PAIRS)] * 2


def shifted(columns: Columns) -> Columns:
    return {name: np.roll(values, 1) for name, values in columns.items()}


def swapped(columns: Columns) -> Columns:
    return dict(zip(columns, reversed(columns.values()), strict=True))


def per_token(columns: Columns) -> Columns:
    counts = {f"ref_{side}_logps": [len(pair[f"{side}_ids"]) for pair in PAIRS] for side in ("chosen", "rejected")}
    return {name: values / np.array(counts[name], dtype=np.float32) for name, values in columns.items()}


def rounded(columns: Columns) -> Columns:
    return {name: torch.from_numpy(values).bfloat16().float().numpy() for name, values in columns.items()}


def missing(columns: Columns) -> Columns:
    return {name: np.where(np.arange(len(values)) == 3, np.nan, values) for name, values in columns.items()}


SPREAD = r"log-probs of completions differ by \S+ nats .* Likely: reference log-probs of another model, of another chat"
WRONG: dict[str, tuple[str, Callable[[Columns], Columns]]] = {
    "those of other rows": ("bfloat16", shifted),
    "chosen and rejected swapped": ("bfloat16", swapped),
    "means over tokens": ("bfloat16", per_token),
    "rounded to bfloat16": ("float32", rounded),
    "one that is not a number": ("bfloat16", missing),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_log_probs_are_refused(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    dtype, spoil = WRONG[name]
    way = Way(0, dtype=dtype, options=ONE)
    right = references(recipe_of(way, folders["mistral"]), ModelSource(folders["mistral"]))
    with pytest.raises(GuardError, match=SPREAD):
        first_step(folders, tmp_path, way, spoil(right))


@pytest.mark.parametrize("engine", ["packed", "padded"])
def test_another_model_is_refused(folders: dict[str, str], tmp_path: Path, engine: str) -> None:
    way = Way(0, engine, options=ONE)
    other = references(recipe_of(way, folders["another seed"]), ModelSource(folders["another seed"]))
    with pytest.raises(GuardError, match=SPREAD):
        first_step(folders, tmp_path, way, other)


def test_another_template_is_refused(folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins with two more tokens."""
    way, source = Way(0, options=ONE), ModelSource(folders["mistral"])
    with monkeypatch.context() as patched:
        longer = [{**pair, "prompt_ids": [9, 9, *pair["prompt_ids"]]} for pair in PAIRS]
        patched.setattr("tests.unit.training.bf16_workers.PAIRS", longer)
        other = references(recipe_of(way, source.path), source)
    with pytest.raises(GuardError, match=SPREAD):
        first_step(folders, tmp_path, way, other)


def test_an_attention_that_leaves_out_caps_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    """By the reference stage and by training, with what works."""
    way = Way(0, "padded", family="gemma2", options=ONE)
    some = {f"ref_{side}_logps": np.zeros(len(PAIRS), dtype=np.float32) for side in ("chosen", "rejected")}
    for reference in (None, some):
        with pytest.raises(UserError, match=r"type gemma2 has; set model\.attn_implementation=eager"):
            first_step(folders, tmp_path, way, reference)


def test_dropout_is_refused_by_name(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model\.layers\.0\.self_attn\.attention_dropout is 0\.1, and the reference has"
    ):
        first_step(folders, tmp_path, Way(0, "padded", family="dropout", options=ONE))
    kept = (*ONE, "model.lora.dropout=0.1", "dpo.training.trl.disable_dropout=false")
    with pytest.raises(UserError, match=r"lora_dropout\.default\.p is 0\.1, and the reference has"):
        first_step(folders, tmp_path, Way(0, lora=True, options=kept))


def sums_of(policy: np.ndarray, reference: np.ndarray, pairs: list[dict[str, list[int]]]) -> torch.Tensor:
    tokens = torch.tensor([[len(pair[side]) for pair in pairs] for side in ("chosen_ids", "rejected_ids")])
    step = FirstStep()
    step.add(torch.from_numpy(policy), torch.from_numpy(reference), tokens)
    return step.sums


def scorer(model: Any, backend: Any = "sdpa", budget: int = 600) -> PackedScorer:
    model = copy.deepcopy(model).to(torch.bfloat16).eval()
    add_fused_lm_head(model)
    return PackedScorer(model, None, budget, backend)


@pytest.mark.parametrize("norm", [0.0, math.nan, math.inf])
def test_no_gradient_is_refused(norm: float) -> None:
    guard, first, second = FirstStepGuard(None, 1.0), SimpleNamespace(global_step=1), SimpleNamespace(global_step=2)
    with pytest.raises(GuardError, match="nothing would be learnt"):
        guard.on_log(None, first, None, logs={"grad_norm": norm})
    guard.on_log(None, first, None, logs={"grad_norm": 1e-3})
    guard.on_log(None, second, None, logs={"grad_norm": 0.0})


def test_spread_and_drift_by_hand() -> None:
    """Two pairs of completions of 4 and 1 tokens that are 2 and 1 nats apart: 2 / sqrt(4) and 1 / sqrt(1) are 1."""
    step = FirstStep()
    step.add(
        torch.tensor([[2.0, 1.0], [-2.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[4, 1]] * 2)
    )
    assert step.sums.tolist() == [[2, 5, 3, 2], [2, 5, -3, 2]]
    assert "differ by 1 nats" in str(refusal(step.sums, 0.99))
    # the chosen are 3 nats better over 5 tokens, the rejected 3 worse, and all of them as good
    assert "gives chosen completions +0.6 nats a token on average, 1.3 for" in str(refusal(step.sums, 1.3))
    assert refusal(step.sums, 1.35) is None


def test_completions_without_tokens_are_not_judged() -> None:
    step = FirstStep()
    step.add(torch.tensor([[1.0], [1.0]]), torch.zeros(2, 1), torch.tensor([[0], [0]]))
    assert refusal(step.sums, 1e-3) is None


def test_later_steps_are_not_judged() -> None:
    FirstStepGuard(None, 1e-3).on_pre_optimizer_step(None, SimpleNamespace(global_step=1), None)


def language(rng: np.random.Generator, tokens: int, noise: float) -> list[int]:
    """A text in which each token is followed by one of four, but for noise."""
    found = [int(rng.integers(3, VOCAB))]
    while len(found) < tokens:
        likely = (found[-1] * np.array([7, 31, 57, 101]) + 11) % (VOCAB - 3) + 3
        found.append(int(rng.choice(likely)) if rng.random() > noise else int(rng.integers(3, VOCAB)))
    return found


def test_the_checkpoint_of_100_steps_earlier_is_refused() -> None:
    """Of SFT's last steps, when the learning rate is low: another spread than roundings have it has not."""
    rng, steps, checkpoints = np.random.default_rng(0), 250, []
    model = make_model("mistral", initializer_range=0.02).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if step == steps - 100:
            checkpoints.append(copy.deepcopy(model))
        ids = torch.tensor([language(rng, 32, 0.05) for _ in range(4)])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    pairs = [
        {
            "prompt_ids": language(rng, 10, 0.05),
            "chosen_ids": language(rng, int(rng.integers(20, 80)), 0.05),
            "rejected_ids": language(rng, int(rng.integers(20, 80)), 0.2),
        }
        for _ in range(32)
    ]
    policy, earlier = (np.stack(scorer(each)(pairs)) for each in (model, *checkpoints))
    margins = 0.1 * ((policy - earlier)[0] - (policy - earlier)[1])
    losses = np.logaddexp(0, -margins)
    assert abs(losses.mean() - math.log(2)) < 4 * losses.std() / math.sqrt(len(losses))  # the loss would not tell
    problem = refusal(sums_of(policy, earlier, pairs), TOLERANCE["bfloat16"])
    assert problem is not None
    assert "gives all completions +0.0" in problem
    assert "another checkpoint of this model" in problem
