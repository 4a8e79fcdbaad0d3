"""The DPO loss of `losses.py` against what the installed TRL computes of the same log-probs, and by hand."""

import ast
import inspect
import math
import re
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from zephyr_ray.training import losses
from zephyr_ray.training.losses import LOSSES, PreferenceLoss, compare, completion_sums, preference_loss, reward_metrics

# Tokens of the prompts and of their chosen and rejected completions.
PROMPTS, CHOSEN, REJECTED = (3, 1, 2, 4, 1), (4, 6, 1, 2, 5), (4, 2, 3, 1, 7)
WIDTH = 10
DTYPES = [torch.float32, torch.bfloat16]
# In TRL the divergence changes these alone; it refuses the others with one.
WITH_DIVERGENCE = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
DIVERGENCES = [
    ("forward_kl", 0.5),
    ("js_divergence", 0.5),
    ("alpha_divergence", 0.5),
    ("alpha_divergence", 2.0),
    ("alpha_divergence", 1.0 + 1e-7),
]


def batch(dtype: torch.dtype = torch.float32, apart: float = 1.0) -> dict[str, torch.Tensor]:
    """What the model gives for TRL's padded batch, and the reference's sums, some nats apart.

    The first column is dropped, as TRL drops it: nothing predicts it.
    """
    draw = torch.Generator().manual_seed(0)
    lengths, starts = torch.tensor([*CHOSEN, *REJECTED])[:, None], torch.tensor(PROMPTS * 2)[:, None]
    place = torch.arange(WIDTH + 1)
    mask = ((place >= starts) & (place < starts + lengths))[:, 1:]
    fields = {
        name: torch.empty(mask.shape).uniform_(low, high, generator=draw).masked_fill(~mask, 0)
        for name, low, high in (("log_probs", -4, 0), ("log_sum_sq_probs", -3, 0), ("entropy", 0, 3))
    }
    log_probs = fields.pop("log_probs").to(dtype)
    reference = log_probs.float().sum(1) + apart * torch.randn(len(mask), generator=draw)
    return fields | {"log_probs": log_probs.requires_grad_(), "mask": mask, "reference": reference}


def trls(values: dict[str, torch.Tensor], **settings: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """The loss, its gradient and the metrics by TRL's own code, whose model is replaced by what it would give."""
    chosen = {"loss_weights": None, "use_weighting": False} | vars(PreferenceLoss()) | settings
    trainer: Any = object.__new__(DPOTrainer)
    device = torch.device("cpu")
    trainer.model = SimpleNamespace(training=True)
    trainer.accelerator = SimpleNamespace(device=device, gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer.args = SimpleNamespace(discopop_tau=chosen.pop("discopop_tau"))
    trainer.loss_types, weights = list(chosen.pop("loss_type")), chosen.pop("loss_weights")
    trainer.loss_weights = weights or [1.0] * len(trainer.loss_types)
    vars(trainer).update(chosen, precompute_ref_logps=True, aux_loss_enabled=False, _tp_size=1, _total_train_tokens=0)
    trainer._metrics = {"train": defaultdict(list)}
    log_probs = values["log_probs"].detach().clone().requires_grad_()
    output = FusedCausalLMOutput(
        log_probs=log_probs,
        log_sum_sq_probs=values["log_sum_sq_probs"],
        entropy=values["entropy"],
        mean_logits=values["entropy"],
        is_top1=values["mask"],
    )
    whole_mask = torch.nn.functional.pad(values["mask"], (1, 0)).long()
    chosen_reference, rejected_reference = values["reference"].chunk(2)
    inputs = {
        "input_ids": torch.zeros_like(whole_mask),
        "attention_mask": torch.ones_like(whole_mask),
        "completion_mask": whole_mask,
        "ref_chosen_logps": chosen_reference,
        "ref_rejected_logps": rejected_reference,
    }
    loss = trainer._compute_loss(lambda **kwargs: output, inputs, False)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    return loss.detach(), gradient, {name: value for name, (value,) in trainer._metrics["train"].items()}


def ours(values: dict[str, torch.Tensor], **settings: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    weighted = settings.pop("use_weighting", False)
    loss = PreferenceLoss(**settings)
    log_probs = values["log_probs"].detach().clone().requires_grad_()
    grids = [each.view(2, -1, WIDTH) for each in (log_probs, values["mask"], values["log_sum_sq_probs"])]
    pairs = compare(loss, *grids[:2], values["reference"].view(2, -1), grids[2] if weighted else None)
    value = preference_loss(loss, pairs)
    (gradient,) = torch.autograd.grad(value, log_probs)
    return value.detach(), gradient, {name: float(each.mean()) for name, each in reward_metrics(pairs).items()}


def assert_trls(dtype: torch.dtype, values: dict[str, torch.Tensor] | None = None, **settings: Any) -> None:
    """Loss, gradient and metrics. Of bfloat16 log-probs TRL's means and all gradients are bfloat16 themselves."""
    values = values or batch(dtype)
    loss, gradient, metrics = ours(values, **settings)
    expected, theirs, all_metrics = trls(values, **settings)
    narrow = dtype == torch.bfloat16
    in_bfloat16 = narrow and ("sft" in settings.get("loss_type", ()) or settings.get("use_weighting", False))
    rtol = 2**-8 if in_bfloat16 else 1e-5
    torch.testing.assert_close(
        loss, expected, rtol=rtol, atol=1e-6, check_dtype=False, msg=lambda m: f"{settings}: {m}"
    )
    assert gradient.dtype == theirs.dtype == dtype
    assert theirs.any() or not torch.isfinite(expected)
    gradient, theirs = (each * values["mask"] for each in (gradient, theirs))  # elsewhere is no token
    torch.testing.assert_close(gradient, theirs, rtol=2**-6 if narrow else 1e-4, atol=1e-6)
    assert metrics == {name: pytest.approx(all_metrics[name], rel=1e-5, abs=1e-6) for name in metrics}
    assert {name for name in all_metrics if "/" in name} - metrics.keys() == {"logits/chosen", "logits/rejected"}


def smoothings(name: str) -> tuple[float, ...]:
    return (0.1, 0.3) if name == "exo_pair" else (0.0, 0.1, 0.3)


def test_there_is_every_loss_of_the_installed_trl() -> None:
    assert LOSSES.keys() == set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer._compute_loss)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_trls(name: str, dtype: torch.dtype) -> None:
    """With each smoothing and several betas, and what length desensitizing makes of it."""
    for smoothing in smoothings(name):
        for beta in (0.01, 0.1, 0.7):
            assert_trls(dtype, loss_type=(name,), label_smoothing=smoothing, beta=beta)
        for ld_alpha in (0.0, 0.5, 1.0):
            assert_trls(dtype, loss_type=(name,), label_smoothing=smoothing, ld_alpha=ld_alpha)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WITH_DIVERGENCE)
def test_each_divergence_is_trls(name: str, dtype: torch.dtype) -> None:
    for kind, coefficient in DIVERGENCES:
        settings = {"f_divergence_type": kind, "f_alpha_divergence_coef": coefficient, "label_smoothing": 0.1}
        assert_trls(dtype, loss_type=(name,), **settings)
        assert_trls(dtype, loss_type=(name,), beta=0.5, ld_alpha=0.5, **settings)


@pytest.mark.parametrize("coefficient", [0.5, 2.0])
def test_a_large_ratio_overflows_no_divergence(coefficient: float) -> None:
    values = batch(apart=200.0)
    settings = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": coefficient}
    loss, gradient, _ = ours(values, **settings)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert_trls(torch.float32, values, **settings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"aot", "aot_unpaired", "hinge", "sft"}))
def test_each_weighted_loss_is_trls(name: str, dtype: torch.dtype) -> None:
    """TRL refuses the two that sort. It fails for hinge and sft, whose losses it multiplies in place."""
    assert_trls(dtype, loss_type=(name,), label_smoothing=0.1, use_weighting=True)
    assert_trls(dtype, loss_type=(name,), label_smoothing=0.1, use_weighting=True, ld_alpha=0.5)


def test_a_weighted_hinge_is_each_pairs_loss_with_its_weight() -> None:
    values, loss = batch(), PreferenceLoss(loss_type=("hinge",))
    grids = [values[name].view(2, -1, WIDTH) for name in ("log_probs", "mask", "log_sum_sq_probs")]
    reference = values["reference"].view(2, -1)
    alone = [
        compare(loss, *(each[:, [number]] for each in (*grids[:2], reference, grids[2])))
        for number in range(len(PROMPTS))
    ]
    expected = [float((each.weight * preference_loss(loss, each._replace(weight=1.0))).detach()) for each in alone]
    weighted, gradient, _ = ours(values, loss_type=("hinge",), use_weighting=True)
    assert float(weighted) == pytest.approx(sum(expected) / len(PROMPTS))
    assert gradient.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weights", [None, (0.8, 0.2, 1.0)])
def test_several_losses_are_added_as_trl_adds_them(weights: tuple[float, ...] | None, dtype: torch.dtype) -> None:
    assert_trls(dtype, loss_type=("sigmoid", "bco_pair", "sft"), loss_weights=weights)


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_discopops_temperature_is_trls(tau: float) -> None:
    assert_trls(torch.float32, loss_type=("discopop",), discopop_tau=tau)


def pair(policy: tuple[float, float], reference: tuple[float, float], **settings: Any) -> Any:
    """One pair, the chosen completion first, of one token each."""
    loss = PreferenceLoss(**settings)
    grid = torch.tensor(policy).view(2, 1, 1)
    return loss, compare(loss, grid, torch.ones(2, 1, 1, dtype=torch.bool), torch.tensor(reference).view(2, 1))


def test_equation_7_by_hand() -> None:
    """The chosen completion is 1 nat likelier than for the reference, the rejected one 1 less: 0.5 (1 + 1) is 1."""
    loss, pairs = pair((-10.0, -12.0), (-11.0, -11.0), beta=0.5)
    assert float(preference_loss(loss, pairs)) == pytest.approx(math.log(1 + math.exp(-1)))
    found = {name: value.tolist() for name, value in reward_metrics(pairs).items()}
    assert found == {
        "rewards/chosen": [0.5],
        "rewards/rejected": [-0.5],
        "rewards/margins": [1.0],
        "rewards/accuracies": [1.0],
        "logps/chosen": [-10.0],
        "logps/rejected": [-12.0],
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hinge", 0.0),  # 1 - 1
        ("ipo", 1.0),  # (2 - 1 / (2 * 0.5)) squared
        ("sppo_hard", 0.0),  # (1 - 0.5 / 0.5) squared and (-1 + 0.5 / 0.5) squared
        ("bco_pair", 2 * math.log(1 + math.exp(-0.5))),
        ("apo_zero", 2 / (1 + math.exp(0.5))),
        ("sft", 10.0),
    ],
)
def test_variants_by_hand(name: str, expected: float) -> None:
    loss, pairs = pair((-10.0, -12.0), (-11.0, -11.0), beta=0.5, loss_type=(name,))
    assert float(preference_loss(loss, pairs)) == pytest.approx(expected, abs=1e-6)


def test_a_weight_of_wpo_by_hand() -> None:
    """Two tokens of half the probability that the model's own would have, and one of a quarter: 1/2 times 1/4."""
    log_probs = torch.tensor([[[-math.log(2), -math.log(2)]], [[-math.log(4), 0.0]]])
    mask = torch.tensor([[[True, True]], [[True, False]]])
    found = compare(PreferenceLoss(), log_probs, mask, torch.zeros(2, 1), torch.zeros(2, 1, 2)).weight
    assert float(found) == pytest.approx(1 / 8)


def test_a_longer_completions_tail_counts_less() -> None:
    """The chosen one has three tokens, the rejected one; what is before a completion is no part of it."""
    mask = torch.tensor([[[False, True, True, True]], [[False, True, False, False]]])
    log_probs = torch.zeros(mask.shape, requires_grad=True)
    completion_sums(log_probs, mask, 0.5).sum().backward()
    assert log_probs.grad is not None
    assert (log_probs.grad * mask).tolist() == [[[0, 1, 0.5, 0.5]], [[0, 1, 0, 0]]]


def test_a_batch_without_a_token_has_a_finite_loss() -> None:
    """A filler row, which only keeps ranks in step."""
    none = torch.zeros(2, 1, 0, requires_grad=True)
    for name in LOSSES:
        loss = PreferenceLoss(loss_type=(name,), label_smoothing=0.1)
        pairs = compare(loss, none, torch.zeros(2, 1, 0, dtype=torch.bool), torch.zeros(2, 1))
        assert torch.isfinite(preference_loss(loss, pairs)), name


def test_an_unknown_divergence_is_an_error() -> None:
    with pytest.raises(ValueError, match="f_divergence_type=kl"):
        pair((0.0, 0.0), (0.0, 0.0), f_divergence_type="kl")


def test_the_losses_need_torch_alone() -> None:
    tree = ast.parse(inspect.getsource(losses))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} == {
        "__future__",
        "collections",
        "dataclasses",
        "math",
        "torch",
        "typing",
    }
