"""Evaluation stage: accuracy and margin of the implicit reward on held-out pairs.

It reads the pairs' log-probs under policy and reference. It writes the pairs, ordered by id, to data/pairs.parquet, and
the results to summary.json and table.md.
"""

from __future__ import annotations

import json
import posixpath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zephyr_ray.data.held_out_pairs import prompts_of, too_few_prompts
from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.implicit_reward import PairLogps, Summary, markdown, summarise, table_lines
from zephyr_ray.evaluation.intervals import LEVEL, RESAMPLES
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import IMPLICIT_REWARDS

_LOGPS = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")


def stage(
    beta: float, seed: int, pairs: Stage, tokenized: Stage, reference: Stage, policy: Stage, of: str | None = None
) -> Stage:
    """The stage `evaluation/preferences`, or `evaluation/preferences_of/NAME` of another model than DPO's.

    Args:
        beta: ...
        seed: For this and the others see `make_preference_evaluation`.
        pairs: ...
        tokenized: ...
        reference: ...
        policy: ...
        of: The other model's name.
    """

    def make(context: StageContext) -> Manifest:
        made = make_preference_evaluation(
            beta,
            seed,
            pairs=context.input(pairs.kind),
            tokenized=context.input(tokenized.kind),
            reference=context.input(reference.kind),
            policy=context.input(policy.kind),
            artifact=context.artifact,
        )
        return made if of is None else made | {"lines": [f"{of}:", *made["lines"]]}

    return Stage(
        "evaluation/preferences" if of is None else f"evaluation/preferences_of/{of}",
        "pairs",
        {"beta": beta, "seed": seed},
        make,
        inputs={each.kind: each for each in (pairs, tokenized, reference, policy)},
        is_evaluation=True,
    )


def make_preference_evaluation(
    beta: float,
    seed: int,
    pairs: Artifact,
    tokenized: Artifact,
    reference: Artifact,
    policy: Artifact,
    artifact: Artifact,
) -> Manifest:
    """Writes rows and summary; returns the stage's part of the manifest, with the table.

    Args:
        beta: The implicit reward's scale.
        seed: Seed of the intervals' resampling.
        pairs: `held_out_pairs`, whose dropped rows are counted here too.
        tokenized: `held_out_tokenized`, whose dropped rows are counted here too.
        reference: Log-probs of the tokenized pairs under the reference.
        policy: Log-probs of the tokenized pairs under the policy.
        artifact: The output.

    Raises:
        UserError: Log-probs are not finite or belong to other pairs, or there are fewer than two prompts.
    """
    rows = _scored_pairs(beta, pairs, reference, policy)
    prompts = rows["prompt_id"].to_numpy()
    if len(set(prompts)) < 2:
        raise too_few_prompts(len(set(prompts)))
    filesystem = artifact.run.filesystem
    filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    pq.write_table(rows, posixpath.join(artifact.path, "data/pairs.parquet"), filesystem=filesystem, compression="zstd")
    summary = summarise(_pair_logps(rows), prompts, beta, seed)
    counts = _row_counts(pairs, tokenized, rows.num_rows)
    results = _summary_json(summary, beta, seed, counts, ties=int((rows["margin"].to_numpy() == 0).sum()))
    artifact.write_text("summary.json", json.dumps(results, indent=2) + "\n")
    artifact.write_text("table.md", markdown(summary))
    return {
        "files": ["data/pairs.parquet", "summary.json", "table.md"],
        "counts": {"in": rows.num_rows, "out": rows.num_rows, "dropped": {}},
        "measures": results["measures"],
        "lines": [*table_lines(summary), _describe_counts(counts)],
    }


def _scored_pairs(beta: float, pairs: Artifact, reference: Artifact, policy: Artifact) -> pa.Table:
    """The scored pairs, ordered by id."""
    scored, under_policy = (
        _sort(pq.read_table(each.files(), filesystem=each.run.filesystem), "pair_id") for each in (reference, policy)
    )
    known = _sort(pair_sources(pairs), "pair_id")
    ids = scored["pair_id"]
    known = known.filter(pc.is_in(known["pair_id"], value_set=ids))
    if not (ids.equals(under_policy["pair_id"]) and ids.equals(known["pair_id"])):
        raise UserError(f"{policy.uri} does not belong to {reference.uri}; delete both and run the job again")
    columns = {name: table[name] for table in (known, scored, under_policy) for name in table.column_names}
    margins = _pair_logps(columns).margins(beta)
    finite = np.isfinite(margins)
    if not finite.all():
        raise UserError(
            f"{int((~finite).sum()):,} of {len(margins):,} held-out pairs have log-probs that are not finite (first "
            f"{ids[int(finite.argmin())]}); look at the loss of DPO: its model may be broken"
        )
    columns["margin"] = pa.chunked_array([margins])
    return pa.table({name: columns[name] for name in IMPLICIT_REWARDS.names}, schema=IMPLICIT_REWARDS)


def pair_sources(pairs: Artifact) -> pa.Table:
    """pair_id, prompt_id and source of every held-out pair."""
    tables = []
    for path in pairs.files():
        prompts = prompts_of(pairs, path)
        sources = pq.read_table(path, filesystem=pairs.run.filesystem, columns=["source"])["source"]
        tables.append(pa.table({"pair_id": [*prompts], "prompt_id": [*prompts.values()], "source": sources}))
    return pa.concat_tables(tables)


def _sort(table: pa.Table, by: str) -> pa.Table:
    return table.sort_by(by).combine_chunks()


def _pair_logps(columns: Any) -> PairLogps:
    """The log-probs of a table, or of its columns by name."""
    return PairLogps(*(np.asarray(columns[f"{name}_logps"], dtype=np.float64) for name in _LOGPS))


def _row_counts(pairs: Artifact, tokenized: Artifact, scored: int) -> dict[str, Any]:
    """Counts of the rows that `preferences.held_out` names: in, added, scored, and dropped by reason."""
    first, second = ((each.manifest() or {})["counts"] for each in (pairs, tokenized))
    reasons = sorted({*first["dropped"], *second["dropped"]})
    dropped = {name: first["dropped"].get(name, 0) + second["dropped"].get(name, 0) for name in reasons}
    counts = {"in": first["in"], "added": first.get("added", 0), "out": scored, "dropped": dropped}
    if counts["in"] + counts["added"] != scored + sum(dropped.values()):
        raise RuntimeError(f"held-out rows were lost or counted twice: {counts}")
    return counts


def _describe_counts(counts: dict[str, Any]) -> str:
    added = f" + {counts['added']:,} more that came of them" if counts["added"] else ""
    reasons = ", ".join(f"{count:,} {name}" for name, count in counts["dropped"].items())
    lost = f"{sum(counts['dropped'].values()):,} dropped" + (f" ({reasons})" if reasons else "")
    return f"{counts['in']:,} rows in{added} = {counts['out']:,} scored + {lost}"


def _summary_json(summary: Summary, beta: float, seed: int, counts: dict[str, Any], ties: int) -> dict[str, Any]:
    return {
        "pairs": summary.pairs,
        "prompts": summary.prompts,
        "measures": {name: estimate._asdict() for name, estimate in summary.measures.items()},
        "ties": ties,
        "beta": beta,
        "interval": {
            "level": LEVEL,
            "method": "percentile bootstrap over prompts",
            "resamples": RESAMPLES,
            "seed": seed,
        },
        "counts": counts,
    }
