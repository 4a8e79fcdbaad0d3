"""Runs the package alpaca_eval: `PYTHON run_alpaca_eval.py JOB.json`.

It is started as a script (`evaluation.alpaca_eval_process`) in the environment that has `alpaca_eval`, and imports
nothing of zephyr_ray. Each line that it prints is an event, a JSON object with one key: `versions`, `refused` or
`stopped` (why there is no result), `annotations` (with `failures`), `win_rate`, or `length_controlled`.
All else that the package prints goes to stderr.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Json = dict[str, Any]
GLM = "length_controlled_v1"
"""The leaderboard's."""


NO_JUDGE = ("APIConnectionError", "APITimeoutError", "AuthenticationError", "PermissionDeniedError", "NotFoundError")
"""What the client raises where the endpoint, and not the prompt, is the reason."""
REPLY = ("completions", "price_per_example", "time_per_example", "completions_all")
"""Keys of what the package's `fn_completions` give."""


class StoppedError(RuntimeError):
    """The endpoint answers nothing, so asking on is in vain."""


def main(job: Json, tell: Callable[[Json], None]) -> None:
    """Judges pairs if there are such, and counts.

    Args:
        job: pairs (rows of instruction, output_1, output_2, generator_1, generator_2 to be judged) or annotations
            (judged ones), positions (of each among AlpacaEval's instructions), length_control (df_gamed.csv, or None);
            and with pairs annotators_config, judge (a model's name in the place of the config's, or None), cache (the
            file of judgments, which are not asked for again), concurrency.
        tell: Is called with each event.
    """
    tell({"versions": {name: importlib.metadata.version(name) for name in ("alpaca_eval", "pandas", "scikit-learn")}})
    rows = job.get("annotations")
    if rows is None:
        try:
            rows, failures = judged(job)
        except FileNotFoundError as error:
            return tell({"refused": f"there is no such file: {error.filename}"})
        except StoppedError as error:
            return tell({"stopped": str(error)})
        tell({"annotations": rows, "failures": failures})
    if all(row["preference"] is None for row in rows):
        return None
    from alpaca_eval import metrics

    tell({"win_rate": plain(metrics.get_winrate(rows))})
    if job["length_control"]:
        tell({"length_controlled": length_controlled(rows, job["positions"], job["length_control"])})
    return None


def judged(job: Json) -> tuple[list[Json], Mapping[str, int]]:
    """The annotations, null where there is none, and how many requests failed, by the reason."""
    from alpaca_eval.annotators import PairwiseAnnotator

    forget_failures(Path(job["cache"]))
    annotator = PairwiseAnnotator(annotators_config=job["annotators_config"], caching_path=job["cache"])
    failures: Counter[str] = Counter()
    for each in annotator.annotators.values():
        if job["judge"]:
            each.completions_kwargs["model_name"] = job["judge"]
        if "<|im_start|>" in each.prompt_template:
            # The package takes any model with "instruct" in its name for one without chat.
            each.completions_kwargs.setdefault("requires_chatml", True)
        each.fn_completions = one_by_one(each.fn_completions, job["concurrency"], failures)
    rows = annotator.annotate_pairs(job["pairs"], chunksize=4 * job["concurrency"])
    return [plain(row) for row in rows], failures


def one_by_one(complete: Callable[..., Json], concurrency: int, failures: Counter[str]) -> Callable[..., Json]:
    """`complete` with a request for each prompt, so that one that fails does not take the others with it.

    A failed completion is None, which no parser of the package takes for a judgment. The package itself gives "".
    """

    def ask(prompt: Any, options: Json) -> Json | str:
        try:
            reply = complete(prompts=[prompt], **{**options, "num_procs": 1})
        except Exception as error:  # whatever the client raises is the lack of this one judgment
            return f"{type(error).__name__}: {error}"
        billed = reply.get("completions_all", [{}])[0].get("total_tokens") != 0
        return reply if billed else "no completion after all retries"

    def completions(prompts: Sequence[Any], **options: Any) -> Json:
        with ThreadPoolExecutor(concurrency) as pool:
            replies = list(pool.map(lambda prompt: ask(prompt, options), prompts))
        reasons = [reply for reply in replies if isinstance(reply, str)]
        if len(reasons) == len(replies) and all(reason.startswith(NO_JUDGE) for reason in reasons):
            raise StoppedError(reasons[0])
        failures.update(" ".join(reason.split())[:200] for reason in reasons)
        keys = next((tuple(reply) for reply in replies if not isinstance(reply, str)), REPLY)
        return {key: [failed(key) if isinstance(reply, str) else reply[key][0] for reply in replies] for key in keys}

    return completions


def failed(key: str) -> float | None:
    """What stands in the place of a reply: no price, no time, no text."""
    return 0.0 if key.endswith("_per_example") else None


def forget_failures(cache: Path) -> None:
    """Removes failed judgments from the package's cache; it would take them for answers of every later run."""
    if cache.is_file():
        rows = json.loads(cache.read_text("utf-8"))
        cache.write_text(json.dumps([row for row in rows if row.get("preference") not in (None, -1)]), "utf-8")


def length_controlled(rows: Sequence[Json], positions: Sequence[int], gamed: str) -> Json:
    """The length-controlled win rate, in percent, or why there is none; the package's regression on a local file."""
    import pandas as pd
    from alpaca_eval.metrics import glm_winrate

    known = pd.read_csv(gamed)
    lacking = {"model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"} - {
        *known.columns
    }
    if lacking:
        return {"reason": f"{gamed} lacks the columns {', '.join(sorted(lacking))}; it has to be df_gamed.csv"}
    firsts = known.drop_duplicates("index")["index"]
    if list(firsts.index) != list(firsts):  # the package looks the difficulty of an instruction up by the row's number
        return {"reason": f"{gamed} does not begin with each instruction once, in order"}
    size = len(firsts)
    if len(rows) != size or sorted(positions) != list(firsts):
        return {"reason": f"{gamed} is of {size} instructions in their order, and these are {len(rows)}"}
    missing = sum(row["preference"] is None for row in rows)
    if missing:
        return {"reason": f"{missing} instructions have no judgment"}
    glm_winrate.hf_hub_download = lambda **_: gamed
    annotations = pd.DataFrame(list(rows), index=list(positions))
    found = glm_winrate.get_length_controlled_winrate(annotations, glm_name=GLM, save_weights_dir=None)
    return {
        "value": float(found["length_controlled_winrate"]),
        "standard_error": float(found["lc_standard_error"]),
        "glm": GLM,
    }


def plain(row: Mapping[str, Any]) -> Json:
    """A row as JSON has it: numbers of numpy as Python's, and what is no number as null."""
    values = {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }


if __name__ == "__main__":
    events = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no event
    main(
        json.loads(Path(sys.argv[1]).read_text()),
        lambda event: print(json.dumps(event, default=str), file=events, flush=True),
    )
