"""Accuracy and margin of the implicit reward on held-out pairs, from their log-probs under policy and reference.

data/pairs.parquet has the pairs, in order of their ids; summary.json and table.md what is told of them.
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
from zephyr_ray.evaluation.implicit_reward import RESAMPLES, PairLogps, Summary, markdown, summarise, table_lines
from zephyr_ray.evaluation.intervals import LEVEL
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.stage import Manifest, Stage, StageContext
from zephyr_ray.schemas import IMPLICIT_REWARDS

_LOGPS = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")


def stage(beta: float, seed: int, pairs: Stage, tokenized: Stage, reference: Stage, policy: Stage) -> Stage:
    """The stage `evaluation/preferences`; arguments as `make_preference_evaluation` has them."""

    def make(context: StageContext) -> Manifest:
        return make_preference_evaluation(
            beta,
            seed,
            pairs=context.input(pairs.kind),
            tokenized=context.input(tokenized.kind),
            reference=context.input(reference.kind),
            policy=context.input(policy.kind),
            artifact=context.artifact,
        )

    return Stage(
        "evaluation/preferences",
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
    """Writes the rows and the summary; returns the manifest's part with the table.

    Args:
        beta: The implicit reward's scale.
        seed: Of the intervals' resampling.
        pairs: `held_out_pairs`.
        tokenized: `held_out_tokenized`; of these two the rows that were left out are told again.
        reference: Log-probs of the tokenized pairs under the reference.
        policy: The same under the policy.
        artifact: What is written.

    Raises:
        UserError: Log-probs that are not finite or not those of these pairs, or fewer than two prompts.
    """
    rows = _rows(beta, pairs, reference, policy)
    prompts = rows["prompt_id"].to_numpy()
    if len(set(prompts)) < 2:
        raise too_few_prompts(len(set(prompts)))
    filesystem = artifact.run.filesystem
    filesystem.create_dir(posixpath.join(artifact.path, "data"), recursive=True)
    pq.write_table(rows, posixpath.join(artifact.path, "data/pairs.parquet"), filesystem=filesystem, compression="zstd")
    summary = summarise(_logps(rows), prompts, beta, seed)
    counts = _counts(pairs, tokenized, rows.num_rows)
    told = _told(summary, beta, seed, counts, ties=int((rows["margin"].to_numpy() == 0).sum()))
    artifact.write_text("summary.json", json.dumps(told, indent=2) + "\n")
    artifact.write_text("table.md", markdown(summary))
    return {
        "files": ["data/pairs.parquet", "summary.json", "table.md"],
        "counts": {"in": rows.num_rows, "out": rows.num_rows, "dropped": {}},
        "measures": told["measures"],
        "lines": [*table_lines(summary), _counted(counts)],
    }


def _rows(beta: float, pairs: Artifact, reference: Artifact, policy: Artifact) -> pa.Table:
    """The pairs that were scored, in order of their ids."""
    scored, under_policy = (
        _sorted(pq.read_table(each.files(), filesystem=each.run.filesystem), "pair_id") for each in (reference, policy)
    )
    known = _sorted(_described(pairs), "pair_id")
    ids = scored["pair_id"]
    known = known.filter(pc.is_in(known["pair_id"], value_set=ids))
    if not (ids.equals(under_policy["pair_id"]) and ids.equals(known["pair_id"])):
        raise UserError(f"{policy.uri} does not belong to {reference.uri}; delete both and run the job again")
    columns = {name: table[name] for table in (known, scored, under_policy) for name in table.column_names}
    margins = _logps(columns).margins(beta)
    finite = np.isfinite(margins)
    if not finite.all():
        raise UserError(
            f"{int((~finite).sum()):,} of {len(margins):,} held-out pairs have log-probs that are not finite (first "
            f"{ids[int(finite.argmin())]}); look at the loss of DPO: its model may be broken"
        )
    columns["margin"] = pa.chunked_array([margins])
    return pa.table({name: columns[name] for name in IMPLICIT_REWARDS.names}, schema=IMPLICIT_REWARDS)


def _described(pairs: Artifact) -> pa.Table:
    """pair_id, prompt_id and source of every held-out pair."""
    tables = []
    for path in pairs.files():
        prompts = prompts_of(pairs, path)
        sources = pq.read_table(path, filesystem=pairs.run.filesystem, columns=["source"])["source"]
        tables.append(pa.table({"pair_id": [*prompts], "prompt_id": [*prompts.values()], "source": sources}))
    return pa.concat_tables(tables)


def _sorted(table: pa.Table, by: str) -> pa.Table:
    return table.sort_by(by).combine_chunks()


def _logps(columns: Any) -> PairLogps:
    """Of a table, or of its columns by name."""
    return PairLogps(*(np.asarray(columns[f"{name}_logps"], dtype=np.float64) for name in _LOGPS))


def _counts(pairs: Artifact, tokenized: Artifact, scored: int) -> dict[str, Any]:
    """What became of the rows that `preferences.held_out` names."""
    first, second = ((each.manifest() or {})["counts"] for each in (pairs, tokenized))
    reasons = sorted({*first["dropped"], *second["dropped"]})
    dropped = {name: first["dropped"].get(name, 0) + second["dropped"].get(name, 0) for name in reasons}
    counts = {"in": first["in"], "added": first.get("added", 0), "out": scored, "dropped": dropped}
    if counts["in"] + counts["added"] != scored + sum(dropped.values()):
        raise RuntimeError(f"held-out rows were lost or counted twice: {counts}")
    return counts


def _counted(counts: dict[str, Any]) -> str:
    added = f" + {counts['added']:,} more that came of them" if counts["added"] else ""
    reasons = ", ".join(f"{count:,} {name}" for name, count in counts["dropped"].items())
    lost = f"{sum(counts['dropped'].values()):,} dropped" + (f" ({reasons})" if reasons else "")
    return f"{counts['in']:,} rows in{added} = {counts['out']:,} scored + {lost}"


def _told(summary: Summary, beta: float, seed: int, counts: dict[str, Any], ties: int) -> dict[str, Any]:
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
