"""Files that an evaluation reads (questions, references, prompts), and those that it writes. All by the driver."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.artifacts import Artifact
from zephyr_ray.pipeline.fingerprints import fingerprint_files
from zephyr_ray.pipeline.stage import Manifest


def fingerprint(name: str, field: str, path: str | None) -> dict[str, str]:
    """A hash of a file's content by its name among a stage's inputs; empty if no file is named.

    Raises:
        UserError: There is no such file on this machine.
    """
    if path is None:
        return {}
    if not os.path.isfile(path):
        raise UserError(f"{field}={path} is not a file on this machine; name one that the driver can read")
    return {name: fingerprint_files([os.path.abspath(path)])}


def write_lines(artifact: Artifact, name: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Writes rows as JSON lines, and returns the file's name in the artifact."""
    return _write(artifact, name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_array(artifact: Artifact, name: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Writes rows as a JSON array, and returns the file's name in the artifact."""
    return _write(artifact, name, json.dumps([*rows], ensure_ascii=False, indent=2) + "\n")


def cut_lines(finish_reasons: Mapping[str, Sequence[str | None]], max_tokens: int) -> list[str]:
    """A line for each model of which answers end at the limit: they are judged as they are.

    Args:
        finish_reasons: Of each model's answers.
        max_tokens: The limit.
    """
    cut = {name: (reasons.count("length"), len(reasons)) for name, reasons in finish_reasons.items()}
    return [
        f"{name}: {count} of {total} answers were cut at max_tokens={max_tokens}"
        for name, (count, total) in cut.items()
        if count
    ]


def write_result(
    artifact: Artifact, files: Sequence[str], numbers: Mapping[str, Any], lines: Sequence[str], counts: Any
) -> Manifest:
    """Writes `summary.json` and `table.md` beside a benchmark's files, and returns the stage's part of the manifest.

    Args:
        artifact: Of the result.
        files: What is there already.
        numbers: What was counted.
        lines: The same for a person.
        counts: Rows in, out, and dropped by reason.
    """
    shown = "\n".join(lines).strip()
    summary = json.dumps({**numbers, "counts": counts}, indent=2, allow_nan=False) + "\n"
    written = [_write(artifact, "summary.json", summary), _write(artifact, "table.md", f"```text\n{shown}\n```\n")]
    return {"files": [*files, *written], "counts": counts, "lines": shown.splitlines()}


def _write(artifact: Artifact, name: str, text: str) -> str:
    folder = posixpath.dirname(posixpath.join(artifact.path, name))
    artifact.run.filesystem.create_dir(folder, recursive=True)
    artifact.write_text(name, text)
    return name
