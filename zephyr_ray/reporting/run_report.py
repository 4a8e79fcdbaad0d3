"""The report of one or several runs: report.html, report.json with its numbers, and llm_comparator.json.

It reads manifests, metrics, summaries and some hundred rows, whatever the size of the run.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zephyr_ray.data import report_page
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Run
from zephyr_ray.reporting import llm_comparator, run_numbers, run_picture
from zephyr_ray.reporting.run_stages import Round, open_root, read_rounds
from zephyr_ray.reporting.samples import Answers, answers, sampled_rows
from zephyr_ray.storage import open_filesystem, write_bytes

HTML, JSON, COMPARATOR = "report.html", "report.json", "llm_comparator.json"
TOGETHER = "comparison"
"""The folder of a report on several runs, in the first one's root."""

_UNREADABLE = (UserError, OSError, pa.ArrowInvalid, json.JSONDecodeError)
"""Of files that were deleted, moved or cut."""


def write(roots: Sequence[str], out: str | None = None, expected: Mapping[str, Sequence[str]] | None = None) -> str:
    """Writes the report, and returns where its page lies.

    Args:
        roots: Roots of runs. Rounds of a run, and several runs, are shown side by side.
        out: The folder to write to. None: the root; of several, `comparison` in the first one.
        expected: By root the names of all stages that its recipe has, where that is known.

    Raises:
        UserError: A root holds no run, or the folder cannot be written.
    """
    runs = [open_root(root) for root in roots]
    labels = _labels(runs)
    expected = expected or {}
    rounds: list[tuple[Round, run_picture.Sampled]] = []
    missing: dict[str, list[str]] = {}
    for root, run, label in zip(roots, runs, labels, strict=True):
        found = read_rounds(run, label)
        rounds += [(each, _sampled(each)) for each in found]
        there = {stage.artifact.stage for each in found for stage in each.stages}
        missing[found[0].label] = [name for name in expected.get(root, ()) if name not in there]
    picture = run_picture.picture(rounds, missing)
    first = runs[0].root
    folder = out or (first if len(runs) == 1 else posixpath.join(first, TOGETHER))
    numbers = json.dumps(run_numbers.numbers(picture), indent=1, ensure_ascii=False, allow_nan=False, default=str)
    files = {HTML: report_page.render("run_report.html.jinja", p=picture), JSON: numbers + "\n"}
    compared = _compared([sampled for _, sampled in rounds])
    if compared is not None:
        files[COMPARATOR] = json.dumps(compared, ensure_ascii=False) + "\n"
    _write_all(folder, files)
    return posixpath.join(folder, HTML)


def _write_all(folder: str, files: Mapping[str, str]) -> None:
    filesystem, path = open_filesystem(folder)
    try:
        filesystem.create_dir(path, recursive=True)
        for name, text in files.items():
            write_bytes(filesystem, posixpath.join(path, name), text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}; name another folder with --out"
        ) from None


def _labels(runs: Sequence[Run]) -> list[str]:
    """A short name of each run: the end of its root, as long as it takes to tell them apart."""
    parts = [run.root.rstrip("/").split("/") for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [run.root for run in runs]  # one run named twice


def _sampled(found: Round) -> run_picture.Sampled:
    """The rows that the report looks at; what cannot be read is said, and nothing else is lost by it."""
    problems: list[str] = []

    def rows(name: str) -> list[dict[str, Any]]:
        stage = found.stage(name)
        if stage is None:
            return []
        try:
            return sampled_rows(stage.artifact)
        except _UNREADABLE as error:
            problems.append(f"rows of {name} cannot be read: {str(error).splitlines()[0]}")
            return []

    pairs, judged = rows("preferences"), rows("judgments")
    kept: list[Answers] = []
    try:
        kept = answers(found)
    except _UNREADABLE as error:
        problems.append(f"answers cannot be read: {str(error).splitlines()[0]}")
    return run_picture.Sampled(pairs, judged, kept, problems)


def _compared(sampled: Sequence[run_picture.Sampled]) -> dict[str, Any] | None:
    """The two models of LLM Comparator's file: as a judge rated them, a program checked them, or pairs say."""
    for each in sampled:
        of_answers = (llm_comparator.of_answers(found) for found in each.answers)
        made = llm_comparator.of_judgments(each.judged) or next(filter(None, of_answers), None)
        made = made or llm_comparator.of_pairs(each.pairs)
        if made is not None:
            return made
    return None
