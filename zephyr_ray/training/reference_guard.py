"""The guard of the first step of DPO or KTO: it stops where policy and reference are not one model.

The policy starts as the reference, so that every completion has the same log-prob twice. The loss says less than the
log-probs do: it is a mean in which errors of both signs cancel, and a loss type, a weight or a mixture of experts'
auxiliary loss gives it another value. Two quantities are judged instead, in nats, for completions of n tokens whose
log-probs are d apart:

- spread: the root of the mean of d^2 / n. Roundings of tokens are of either sign, so that d grows with the root of n,
  and d / sqrt(n) is about what one token's rounding is, whatever the lengths.
- drift: |sum of d| / sqrt(sum of n), for the chosen, for the rejected and for all completions. Roundings cancel in the
  sum, so that drift is as small as spread. What one model prefers to another does not cancel: a checkpoint that gives
  0.003 nats a token less has a drift of 0.4 over 20,000 tokens, with a spread that roundings could have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from zephyr_ray.errors import GuardError, UserError
from zephyr_ray.training.losses import completion_sums

TOLERANCE = {"bfloat16": 0.3, "float32": 1e-3}
"""Of spread and drift. Two packings of a bfloat16 model of four layers had a spread of 0.06 on an H100, unlike ways to
compute it up to 0.16; another model's is 1 and more. In float32 roundings are 1e-5."""


class FirstStep:
    """Sums over the completions of a step on this rank, chosen ones first."""

    def __init__(self) -> None:
        self.sums = torch.zeros(2, 4, dtype=torch.float64)
        """For chosen and rejected: completions, their tokens, sum of d, sum of d^2 / n. Where the log-probs are."""

    def watched(
        self, model: Callable[..., Any], inputs: dict[str, torch.Tensor], ld_alpha: float | None
    ) -> Callable[..., Any]:
        """The model, which also adds what it computes for a batch of TRL's to the sums."""
        mask = inputs["completion_mask"][:, 1:]
        reference = torch.stack([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])

        def compute(*args: Any, **kwargs: Any) -> Any:
            output = model(*args, **kwargs)
            per_token = output.log_probs.detach()[:, -mask.shape[1] :].float()
            grid, its_mask = (values.view(2, -1, mask.shape[1]) for values in (per_token, mask))
            self.add(completion_sums(grid, its_mask, ld_alpha), reference, its_mask.sum(-1))
            return output

        return compute

    def add(self, policy: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> None:
        """Log-probs of completions and their numbers of tokens, each [2, pairs]."""
        apart, tokens = (values.detach().double() for values in (policy - reference, tokens))
        there = tokens > 0
        self.sums = self.sums.to(apart.device, non_blocking=True) + torch.stack(
            [there.sum(1), tokens.sum(1), (apart * there).sum(1), (apart**2 / tokens.clamp(min=1) * there).sum(1)],
            dim=1,
        )


def refusal(sums: torch.Tensor, tolerance: float, method: str = "dpo") -> str | None:
    """What is wrong with a step's sums (`FirstStep.sums`, of all ranks), or None."""
    bound = f"({method}.step0_tolerance sets the bound)"
    count, tokens, apart, squares = sums.sum(dim=0).tolist()
    if not count:
        return None
    spread = math.sqrt(squares / count)
    if not spread <= tolerance:
        return (
            "policy and reference are not the same model: at the first step the log-probs of completions differ by "
            f"{spread:.2g} nats for the square root of their tokens, where {tolerance:g} is allowed. Likely: reference "
            f"log-probs of another model, of another chat template or of other rows {bound}"
        )
    parts = {"all": (tokens, apart), "chosen": sums[0, 1:3].tolist(), "rejected": sums[1, 1:3].tolist()}
    for name, (part_tokens, part_apart) in parts.items():
        if abs(part_apart) > tolerance * math.sqrt(part_tokens):
            mean, drift = part_apart / part_tokens, abs(part_apart) / math.sqrt(part_tokens)
            return (
                f"policy and reference are not the same model: at the first step the policy gives {name} completions "
                f"{mean:+.2g} nats a token on average, {drift:.2g} for the square root of their tokens, where "
                f"{tolerance:g} is allowed. Likely: reference log-probs of another checkpoint of this model, or of "
                f"completions that were cut otherwise {bound}"
            )
    return None


class FirstStepGuard(TrainerCallback):
    """Stops a training whose first step shows that policy and reference differ, or that nothing is learnt."""

    def __init__(self, trainer: Any, tolerance: float, method: str = "dpo"):
        self.trainer, self.tolerance, self.method = trainer, tolerance, method

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step > 0:
            return
        accelerator = self.trainer.accelerator
        sums = accelerator.reduce(self.trainer.first_step.sums.to(accelerator.device), reduction="sum")
        if problem := refusal(sums.cpu(), self.tolerance, self.method):
            raise GuardError(problem)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        norm = (logs or {}).get("grad_norm")
        if state.global_step == 1 and norm is not None and not (math.isfinite(norm) and norm > 0):
            raise GuardError(
                f"the gradient's norm at the first step is {norm}: nothing would be learnt. Likely: frozen weights, "
                "completions that are all cut away, or a 16-bit overflow"
            )


def check_no_dropout(model: torch.nn.Module, method: str = "dpo") -> None:
    """Refuses a policy with dropout: the reference has none, and would be another model.

    Raises:
        UserError: Naming the module, its setting and the way out.
    """
    for name, module in model.named_modules():
        own = {"p": module.p} if isinstance(module, torch.nn.Dropout) else vars(module)
        for setting, value in own.items():
            if isinstance(value, float) and value > 0 and (setting == "p" or "dropout" in setting):
                raise UserError(
                    f"{method.upper()} with dropout: {name}.{setting} is {value:g}, and the reference has none; set it "
                    f"to 0 in the model's config.json, and leave {method}.training.trl.disable_dropout at true"
                )
