"""Why two completions became a pair, in words, by the rule that made it (`binarize`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zephyr_ray.data.binarize import Rule, best_completions, lower_than, score_completions
from zephyr_ray.schemas import Dropped


def why_these(completions: Sequence[dict[str, Any]], chosen: str, rejected: str, rule: Rule) -> str:
    """Why the rule chose these texts.

    Args:
        completions: All completions of the prompt with their scores.
        chosen: Text of the chosen one.
        rejected: Text of the rejected one.
        rule: The recipe's.
    """
    try:
        scored = score_completions(completions, rule)
        usable = scored.completions
        best = {each.text: each for each in best_completions(usable, rule)}
    except Dropped as dropped:
        return f"the completions as they are now make no pair: {dropped}"
    if chosen not in best and rule.rejected != "every_pair":
        return "other completions have the best score now; the pair was made of other judgments"
    by = f" by more than {rule.margin:g}" if rule.margin else ""
    if rule.rejected == "every_pair":
        return f"every two completions whose {scored.kind} differs{by} make a pair; the higher one is chosen"
    won_by = best[chosen]
    lower = {each.second.text for each in lower_than(won_by, usable, rule.margin)} - {chosen}
    won = f"the chosen one has the best {scored.kind} ({won_by.score:g}) of {len(usable)} completions"
    won += f", drawn by the seed among {len(best)} with that score" if len(best) > 1 else ""
    return f"{won}; the rejected one {_lost(rule, lower, by)}"


def _lost(rule: Rule, lower: set[str], by: str) -> str:
    if rule.rejected == "lowest":
        return f"scores lowest of the {len(lower)} that score lower{by}"
    if len(lower) == 1:
        return f"is the only one that scores lower{by}"
    return f"was drawn by the seed among the {len(lower)} that score lower{by}"
