"""The stages that hold a recipe's judge against people.

| stage | what it writes |
| --- | --- |
| evaluation/labelled_pairs | the pairs as candidates (`schemas.CANDIDATES`), and their labels (`labels.jsonl`) |
| evaluation/labelled_pairs_judgments | the recipe's judge on them (`data.judgments`), in both orders and twice |
| evaluation/judge_agreement | `summary.json`, `table.md`, `verdicts.jsonl` (which `jobs/evaluate.py agreement` reads) |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.config.evaluation import JudgeAgreement
from zephyr_ray.config.feedback import Judging, LanguageModelJudges
from zephyr_ray.config.model import Chat
from zephyr_ray.data import judgments
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation import recorded_files
from zephyr_ray.evaluation.judge_agreement.labelled_pairs import LabelledPair, labelled_pair, merged
from zephyr_ray.evaluation.judge_agreement.result import as_json, compare_with_people, table_lines, verdict_rows
from zephyr_ray.evaluation.questions.files import fingerprint, write_lines, write_result
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import CANDIDATES, Dropped, Reason

PAIRS = "evaluation/labelled_pairs"
_ROWS_FILE = "data/pairs.parquet"
_LABELS_FILE = "labels.jsonl"


def stages(
    section: JudgeAgreement, judging: Judging | None, chat: Chat, seed: int, models: Mapping[str, Stage]
) -> list[Stage]:
    """The three, in order.

    Args:
        section: The pairs.
        judging: The recipe's judge, where the section names none.
        chat: The template of models that the stage runs itself.
        seed: The run's.
        models: The stages of this run whose checkpoints may be deployed, by name.

    Raises:
        UserError: The recipe has no judge.
    """
    if section.judge is not None:
        judging = judging.model_copy(update={"judge": section.judge}) if judging else Judging(judge=section.judge)
    if judging is None:
        raise UserError("evaluation.judge_agreement: this recipe has no judging section; add one with the judge")
    pairs = _pairs_stage(section)
    judged = judgments.stage(
        in_both_orders_and_twice(judging), chat, seed, pairs, models, "evaluation/labelled_pairs_judgments"
    )
    return [pairs, judged, _result_stage(pairs, judged)]


def in_both_orders_and_twice(judging: Judging) -> Judging:
    """The judge as it is, asked about every pair in both orders and at least twice where order or chance matter."""
    judge = judging.judge
    if not isinstance(judge, LanguageModelJudges):
        return judging
    asked = judge.model_copy(update={"position_check": 1.0, "repeats": max(2, judge.repeats)})
    return judging.model_copy(update={"judge": asked})


def _pairs_stage(section: JudgeAgreement) -> Stage:
    def make(context: StageContext) -> Manifest:
        return make_pairs(section, context.artifact)

    return Stage(
        PAIRS,
        "pairs",
        {},
        make,
        outside=lambda: fingerprint("pairs", "evaluation.judge_agreement.pairs", section.pairs),
    )


def make_pairs(section: JudgeAgreement, artifact: Artifact) -> Manifest:
    """Writes the pairs that can be judged; every other row of the file is counted by its reason.

    Raises:
        UserError: The file cannot be read, or no row is a labelled pair.
    """
    recorded = recorded_files.read(section.pairs)
    found: list[LabelledPair] = []
    dropped = Counter({str(Reason.UNDECODABLE_LINE): recorded.broken} if recorded.broken else {})
    first: Dropped | None = None
    for row in recorded.rows:
        try:
            found.append(labelled_pair(row))
        except Dropped as reason:
            dropped[str(reason.reason)] += 1
            first = first or reason
    if not found:
        raise UserError(f"{section.pairs}: no row is a pair with a person's label; of the first: {first}")
    pairs = merged(found)
    if len(pairs) < len(found):
        dropped[str(Reason.REPEATED)] += len(found) - len(pairs)
    artifact.run.filesystem.create_dir(f"{artifact.path}/data", recursive=True)
    pq.write_table(_candidates(pairs), f"{artifact.path}/{_ROWS_FILE}", filesystem=artifact.run.filesystem)
    labels = write_lines(
        artifact, _LABELS_FILE, [{"pair_id": each.pair_id, "labels": {**each.labels}} for each in pairs]
    )
    counts = {"in": recorded.lines, "out": len(pairs), "dropped": dict(sorted(dropped.items()))}
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    line = f"{recorded.lines} rows in = {len(pairs)} kept + {sum(dropped.values())} dropped"
    return {
        "files": [{"name": _ROWS_FILE, "rows": len(pairs)}, labels],
        "counts": counts,
        "lines": [line + (f" ({reasons}; labels of repeated pairs are kept)" if reasons else "")],
    }


def _candidates(pairs: list[LabelledPair]) -> pa.Table:
    rows = [
        {
            "prompt_id": each.pair_id,
            "messages": each.messages,
            "completions": [{"model": name, "content": text} for name, text in (("a", each.a), ("b", each.b))],
        }
        for each in pairs
    ]
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def _result_stage(pairs: Stage, judged: Stage) -> Stage:
    def make(context: StageContext) -> Manifest:
        return make_result(context.input("pairs"), context.input("judgments"), context.artifact)

    inputs = {"pairs": pairs, "judgments": judged}
    return Stage("evaluation/judge_agreement", "pairs", {}, make, inputs=inputs, is_evaluation=True)


def make_result(pairs: Artifact, judged: Artifact, artifact: Artifact) -> Manifest:
    """Writes the numbers, the table and the verdicts; a pair whose judging was given up has no verdict."""
    labels = {row["pair_id"]: tuple(row["labels"].values()) for row in _json_lines(pairs, _LABELS_FILE)}
    rows: dict[str, Any] = {row["prompt_id"]: row for row in judged.table().to_pylist()}
    found = compare_with_people(labels, rows)
    verdicts = write_lines(artifact, "verdicts.jsonl", verdict_rows(labels, rows))
    lost = len(labels) - len(rows)
    counts = {"in": len(labels), "out": len(rows), "dropped": {"given_up": lost} if lost else {}}
    return write_result(artifact, [verdicts], as_json(found), table_lines(found), counts)


def _json_lines(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    with artifact.run.filesystem.open_input_stream(f"{artifact.path}/{name}") as stream:
        return [json.loads(line) for line in stream.read().splitlines()]
