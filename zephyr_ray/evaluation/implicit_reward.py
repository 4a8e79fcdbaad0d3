"""Accuracy and margin of DPO's implicit reward, from log-probs of held-out pairs under policy and reference.

The implicit reward is beta log(policy(y | x) / reference(y | x)), up to a term that depends only on the prompt and
cancels within a pair (arXiv 2305.18290, equation 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zephyr_ray.evaluation.intervals import LEVEL, RESAMPLES, Estimate, bootstrap

NAMES = {
    "implicit_reward_accuracy": "implicit reward accuracy",
    "implicit_reward_margin": "implicit reward margin",
    "reference_logp_accuracy": "log-prob accuracy, reference",
    "policy_logp_accuracy": "log-prob accuracy, policy",
    "policy_minus_reference": "  policy - reference",
}


@dataclass(frozen=True)
class PairLogps:
    """Sums of log-probabilities over completions, in nats; each array is [pairs], float64."""

    policy_chosen: np.ndarray
    policy_rejected: np.ndarray
    ref_chosen: np.ndarray
    ref_rejected: np.ndarray

    def margins(self, beta: float) -> np.ndarray:
        """The implicit reward of each chosen completion minus that of the rejected one; [pairs]."""
        chosen, rejected = self.policy_chosen - self.ref_chosen, self.policy_rejected - self.ref_rejected
        return beta * (chosen - rejected)


@dataclass(frozen=True)
class Summary:
    """The measures over all pairs, by the keys of `NAMES`."""

    pairs: int
    prompts: int
    measures: dict[str, Estimate]


def wins(margins: np.ndarray) -> np.ndarray:
    """1 if a margin is above 0, 0 if it is below, 0.5 for a tie (the expectation of a fair coin)."""
    return (margins > 0) + 0.5 * (margins == 0)


def summarise(logps: PairLogps, prompts: np.ndarray, beta: float, seed: int) -> Summary:
    """Means over pairs, with 95 % intervals by a bootstrap over prompts.

    Args:
        logps: Finite log-probabilities.
        prompts: [pairs], the id of each pair's prompt.
        beta: The scale of the implicit reward, as in training.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: There are fewer than two prompts.
    """
    margins = logps.margins(beta)
    reference = wins(logps.ref_chosen - logps.ref_rejected)
    policy = wins(logps.policy_chosen - logps.policy_rejected)
    columns = np.column_stack([wins(margins), margins, reference, policy, policy - reference])
    estimates = bootstrap(columns, prompts, resamples=RESAMPLES, seed=seed)
    return Summary(len(prompts), len(np.unique(prompts)), dict(zip(NAMES, estimates, strict=True)))


def table(summary: Summary) -> list[tuple[str, str, str]]:
    """Name, value and interval of each measure as text; a margin is in nats times beta."""
    return [(NAMES[name], *_format_estimate(name, estimate)) for name, estimate in summary.measures.items()]


def heading(summary: Summary) -> str:
    """The line above the table."""
    return f"held-out preferences: {summary.pairs:,} pairs over {summary.prompts:,} prompts"


def table_lines(summary: Summary) -> list[str]:
    """The table as plain text."""
    lines = [heading(summary), f"{'':<30} {'value':>9}   {LEVEL:.0%} interval".replace("%", " %")]
    return lines + [f"{name:<30} {value:>9}   {interval}" for name, value, interval in table(summary)]


def markdown(summary: Summary) -> str:
    """The table as Markdown."""
    lines = [heading(summary), "", f"| | value | {LEVEL:.0%} interval |".replace("%", " %"), "| --- | ---: | --- |"]
    lines += [f"| {name.strip()} | {value} | {interval} |" for name, value, interval in table(summary)]
    notes = (
        "An accuracy is the share of pairs in which the chosen answer has the larger number; a tie counts as half. "
        f"Intervals: percentile bootstrap over prompts, {RESAMPLES:,} resamples."
    )
    return "\n".join([*lines, "", notes, ""])


def _format_estimate(name: str, estimate: Estimate) -> tuple[str, str]:
    form = {"implicit_reward_margin": "+.4f", "policy_minus_reference": "+.1%"}.get(name, ".1%")
    value, low, high = (f"{number:{form}}" for number in estimate)
    return value, f"{low} to {high}"
