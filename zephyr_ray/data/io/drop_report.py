"""Checks a report on rows that were written: fails where too many were dropped, and says what became of them."""

from __future__ import annotations

from typing import Any

from zephyr_ray.data.io.writer import Report
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.schemas import Reason

_TOP = 3  # reasons that the error names
_ROWS_THERE_ALREADY = (Reason.REPEATED, Reason.NEAR_DUPLICATE, Reason.IN_TRAINING)


def examined(report: Report, max_dropped: float, artifact: Artifact) -> dict[str, Any]:
    """The stage's part of the manifest with the lines for a person. Raises as `check`."""
    check(report, max_dropped, artifact)
    return manifest(report) | {"lines": lines(report)}


def manifest(report: Report) -> dict[str, Any]:
    """The manifest's own part: counts, files, and the statistics of what was measured."""
    counts = {"in": report.rows_in, "out": report.rows_out, "dropped": report.dropped}
    return {
        "files": [{"name": name, "rows": rows} for name, rows in sorted(report.files.items())],
        "counts": counts | ({"added": report.added} if report.added else {}),
        "stats": report.stats,
        **({"noted": report.noted} if report.noted else {}),
        **({"asked": report.asked} if report.asked else {}),
    }


def lines(report: Report) -> list[str]:
    """What a person sees: every row accounted for, the lengths, and the share of tokens that was cut off."""
    lost = sum(report.dropped.values())
    added = f" + {report.added:,} more that came of them" if report.added else ""
    shown = [f"{report.rows_in:,} rows in{added} = {report.rows_out:,} kept + {lost:,} dropped"]
    shown += [f"  dropped {reason}: {count:,}" for reason, count in _by_count(report)]
    shown += [
        f"  {name.replace('_', ' ')}: " + "  ".join(f"{key} {stat[key]:,}" for key in ("p50", "p90", "p99", "max"))
        for name, stat in report.stats.items()
        if not name.endswith("truncated")
    ]
    shown += [f"  {spoken(name)}: {number:,}" for name, number in report.noted.items()]
    return shown + _truncation_lines(report)


def spoken(noted: str) -> str:
    """A name of `Report.noted` for a person. What follows a space in it, such as a file, stays as it is."""
    what, space, of = noted.partition(" ")
    return what.replace("_", " ") + space + of


def truncated_share(report: Report) -> float | None:
    """Tokens cut off as a share of all tokens there were, or None where nothing was tokenized."""
    kept = sum(stat["sum"] for name, stat in report.stats.items() if name.endswith("_tokens"))
    cut = sum(stat["sum"] for name, stat in report.stats.items() if name.endswith("truncated"))
    return cut / (kept + cut) if kept + cut else None


def check(report: Report, max_dropped: float, artifact: Artifact) -> None:
    """Refuses to go on where too many rows were dropped.

    Args:
        report: What became of the rows.
        max_dropped: Largest share of the rows that may be dropped.
        artifact: Where they lie.

    Raises:
        UserError: More than that was dropped, or nothing is left.
    """
    lost = sum(report.dropped.values())
    if not report.rows_in:
        raise UserError(f"{artifact.stage}: the data has no rows; check what the recipe names")
    # Where a source row may become several, neither many pairs of some rows nor those of them that were left out later
    # hide how many rows became none.
    rows_lost = lost - sum(report.dropped.get(str(reason), 0) for reason in _ROWS_THERE_ALREADY)
    is_fine = lost <= max_dropped * (report.rows_in + report.added) and rows_lost <= max_dropped * report.rows_in
    if report.rows_out and is_fine:
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in _by_count(report)[:_TOP])
    limit = "no row is left" if not report.rows_out else f"more than max_dropped={max_dropped:g} allows"
    raise UserError(
        f"{artifact.stage}: {lost:,} of {report.rows_in:,} rows dropped ({reasons}), {limit}; "
        f"they lie in {artifact.uri}/dropped with their sources"
    )


def _by_count(report: Report) -> list[tuple[str, int]]:
    return sorted(report.dropped.items(), key=lambda item: (-item[1], item[0]))


def _truncation_lines(report: Report) -> list[str]:
    share = truncated_share(report)
    if share is None:
        return []
    cut = {name: stat for name, stat in report.stats.items() if name.endswith("truncated")}
    rows = ", ".join(f"{name.replace('_', ' ')} in {stat['nonzero']:,} rows" for name, stat in cut.items())
    return [f"  tokens cut off: {share:.2%} ({rows})"]
