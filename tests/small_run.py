"""A run of a few rows from prompts to a DPO checkpoint, written as the stages write it, without any model."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zephyr_ray.config.section import Values
from zephyr_ray.data.binarize import Rule
from zephyr_ray.data.preferences import to_pairs
from zephyr_ray.pipeline.artifacts import Artifact, Run
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.pipeline.lineage.export import write_to_checkpoint
from zephyr_ray.pipeline.stage import Stage, identities
from zephyr_ray.schemas import CANDIDATES, DROPPED, JUDGMENTS, PREFERENCES, PROMPTS, TOKENIZED

QUESTIONS = ("Which city?", "Which river?", "Which lake?")
SCORES = ((9.0, 3.0, 5.0), (4.0, 4.0, 4.0), (8.0, 8.0, 2.0))
"""Of three answers to each question; those to the second are tied."""
BETA = 0.1
_HUB = "owner/base"
_COMMIT = "c" * 40


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": QUESTIONS[number]}]


def prompt_id(number: int) -> str:
    return content_id(messages(number))


def stages(beta: float = BETA, temperature: float = 1.0, rounds: int = 1) -> list[Stage]:
    """The run's stages, of which none makes anything; in later rounds the model of the one before answers."""

    def stage(kind: str, config: Mapping[str, Any], *inputs: Stage, **more: Any) -> Stage:
        return Stage(
            kind, "rows", {**config, "seed": 7}, lambda context: {}, {each.kind: each for each in inputs}, **more
        )

    pool = [
        {"type": "endpoint", "name": "first", "model": "first-1"},
        {"type": "deployment", "name": "own", "model": _HUB},
    ]
    judge = {"type": "language_models", "models": [{"type": "endpoint", "name": "judge", "model": "judge-2"}]}
    prompts = stage("prompts", {"prompts": {"train": "questions.jsonl"}}, outside=lambda: {"prompts": "0" * 32})
    candidates = stage("candidates", {"sampling": Values({"pool": pool, "temperature": temperature})}, prompts)
    judgments = stage("judgments", {"judging": {"judge": judge}}, candidates)
    rule = {"train": "judgments", "rejected": "random_lower", "score": "overall", "margin": 0.0}
    preferences = stage("preferences", {"preferences": rule}, judgments)
    tokenized = stage("tokenized", {"tokenized": {"max_length": 64}}, preferences)
    section = {"beta": beta, "global_batch": 1, "epochs": 2.0, "max_steps": None, "loss_type": ["sigmoid"]}
    dpo = stage("dpo", {"dpo": section, "model": {"dtype": "auto", "lora": None}}, tokenized, makes_model=True)
    first = [prompts, candidates, judgments, preferences, tokenized, dpo]
    return [*first, *_later(first, rounds)]


def _later(first: Sequence[Stage], rounds: int) -> list[Stage]:
    found: list[Stage] = []
    last = {stage.kind: stage for stage in first}
    for number in range(2, rounds + 1):
        last["candidates"] = replace(last["candidates"], inputs={"prompts": last["prompts"], "dpo": last["dpo"]})
        for kind in ("candidates", "judgments", "preferences", "tokenized", "dpo"):
            inputs = {name: last[name] for name in last[kind].inputs}
            last[kind] = replace(last[kind], round=number, inputs=inputs)
            found.append(last[kind])
    return found


def make(root: str, *, until: str = "dpo", start: str = _HUB, rounds: int = 1, **settings: float) -> Run:
    """Writes the run as its first driver; `until` is left unfinished if it is not `dpo`, which begins with `start`."""
    run = Run(root)
    run.epoch = 1
    run.filesystem.create_dir(run.path, recursive=True)
    run.write_text("recipe.yaml", "run: {}\n")
    for stage, known in identities(stages(**settings, rounds=rounds), run).items():
        artifact = run.artifact(stage.name)
        artifact.begin(known.fingerprint, stage.config, known.inputs)
        manifest: dict[str, Any] = {
            "stage": stage.name,
            "fingerprint": known.fingerprint,
            "inputs": known.inputs,
            "config": stage.config,
            **_MAKE[stage.kind](artifact),
            "code": {},
            "environment": {"python": "3.11", "trl": "1.16.0", "commit": "d" * 40},
            "uncommitted": False,
            "begun": "2026-01-02T03:04:05+00:00",
            "ended": "2026-01-02T03:05:05+00:00",
            "seconds": 60.0,
        }
        if stage.name == until != "dpo":
            break
        if "checkpoint" in manifest:
            manifest["model"] = {"path": start, "revision": _COMMIT if start == _HUB else None}
            write_to_checkpoint(artifact, manifest, "run: {}\n")
        artifact.finish(manifest)
    return run


def pairs(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run.artifact("preferences").table().to_pylist()
    return rows


def _completions(number: int, *, judged: bool, folder: str) -> list[dict[str, Any]]:
    """Answers to a question; in a later round the last ones come first, with their scores, under the same names."""
    found = []
    for place, score in enumerate(SCORES[number][:: -1 if folder else 1]):
        plain = {
            "model": "first" if place else "own",
            "content": f"{folder} answer {number}.{place}".strip(),
            "finish_reason": "stop",
            "tokens": 3,
            "seed": 100 * number + place,
            "principle": None,
        }
        opinion = {"judge": "judge", "repeat": 0, "is_reversed": False, "position": place, "aspect": "overall"}
        rated = {"overall_score": score, "opinions": [{**opinion, "rating": score, "rationale": None}]}
        found.append({**plain, **(rated if judged else {})})
    return found


def _prompts(artifact: Artifact) -> dict[str, Any]:
    rows = [
        {"prompt_id": prompt_id(number), "messages": messages(number), "source": f"questions.jsonl:{number + 1}"}
        for number in range(len(QUESTIONS))
    ]
    repeat = {"source": "questions.jsonl:4", "reason": "repeated", "detail": prompt_id(0)}
    unreadable = {"source": "questions.jsonl:5", "reason": "undecodable_line", "detail": "{"}
    return _written(artifact, rows, PROMPTS, [repeat, unreadable])


def _candidates(artifact: Artifact) -> dict[str, Any]:
    asked = {"requests": 9, "prompt_tokens": 90, "tokens": 27, "usd": 0.5}
    return {
        **_written(artifact, _answered(artifact, judged=False), CANDIDATES),
        "asked": asked,
        "commits": {_HUB: _COMMIT},
    }


def _judgments(artifact: Artifact) -> dict[str, Any]:
    return _written(artifact, [{**row, "replies": []} for row in _answered(artifact, judged=True)], JUDGMENTS)


def _answered(artifact: Artifact, *, judged: bool) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": prompt_id(number),
            "messages": messages(number),
            "completions": _completions(number, judged=judged, folder=posixpath.dirname(artifact.stage)),
            "error": None,
        }
        for number in range(len(QUESTIONS))
    ]


def _preferences(artifact: Artifact) -> dict[str, Any]:
    judgments = _beside(artifact, "judgments")
    rows = judgments.table().to_pylist()
    sources = [f"{judgments.uris()[0]}:{number}" for number in range(1, len(rows) + 1)]
    table, _ = to_pairs(pa.table({"source": sources, "row": rows}), rule=Rule(seed=7))
    made = table.to_pylist()
    return _written(
        artifact, [row for row in made if not row["reason"]], PREFERENCES, [row for row in made if row["reason"]]
    )


def _beside(artifact: Artifact, kind: str) -> Artifact:
    """An artifact of the same round."""
    return artifact.run.artifact(posixpath.join(posixpath.dirname(artifact.stage), kind))


def _tokenized(artifact: Artifact) -> dict[str, Any]:
    rows = [
        {"pair_id": pair["pair_id"], "prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
        | dict.fromkeys(("prompt_truncated", "chosen_truncated", "rejected_truncated"), 0)
        for pair in _beside(artifact, "preferences").table().to_pylist()
    ]
    return _written(artifact, rows, TOKENIZED)


def _dpo(artifact: Artifact) -> dict[str, Any]:
    checkpoint = artifact.new_checkpoint()
    artifact.run.filesystem.create_dir(posixpath.join(artifact.path, checkpoint), recursive=True)
    artifact.write_text(f"{checkpoint}/config.json", "{}")
    artifact.write_text("metrics.jsonl", json.dumps({"loss": 0.5, "step": 4}) + "\n")
    return {
        "files": [],
        "checkpoint": checkpoint,
        "weights": "e" * 32,
        "trained": {"rows": 2, "fewest_times": 2, "most_times": 2},
        "licences": {_HUB: "apache-2.0"},
        "commits": {_HUB: _COMMIT},
    }


def _written(
    artifact: Artifact, rows: Sequence[Any], schema: pa.Schema, dropped: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    files = []
    for folder, some, kind in (("data", rows, schema), ("dropped", dropped, DROPPED)):
        if some:
            name = artifact.new_name(f"{folder}/000.parquet")
            artifact.run.filesystem.create_dir(posixpath.join(artifact.path, folder), recursive=True)
            table = pa.Table.from_pylist(list(some), schema=kind)
            pq.write_table(
                table, posixpath.join(artifact.path, name), filesystem=artifact.run.filesystem, row_group_size=2
            )
            files.append({"name": name, "rows": len(some)})
    reasons = [row["reason"] for row in dropped]
    counts = {
        "in": len(rows) + len(dropped),
        "out": len(rows),
        "dropped": {reason: reasons.count(reason) for reason in reasons},
    }
    return {"files": files, "counts": counts}


_MAKE = {
    "prompts": _prompts,
    "candidates": _candidates,
    "judgments": _judgments,
    "preferences": _preferences,
    "tokenized": _tokenized,
    "dpo": _dpo,
}
