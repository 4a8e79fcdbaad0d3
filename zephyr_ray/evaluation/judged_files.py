"""Reads recorded verdicts on pairs of answers: our own lines, and Arena-Hard's judgments in both orders."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

from zephyr_ray.errors import UserError
from zephyr_ray.evaluation.agreement import REPLIES, VERDICTS, Judged, Verdict
from zephyr_ray.evaluation.recorded_files import ERROR, Row, left_out_note, read

# Arena-Hard's verdicts, with `[A=B]` where a program took the brackets of `[[A=B]]` for part of it.
_ARENA_VERDICT = re.compile(r"^\[*(?:(A>>?B)|(B>>?A)|A=B)\]*$")
_ARENA_ANSWER = re.compile(r"<\|The Start of Assistant ([AB])'s .*?\|>\n(.*?)\n<\|The End of Assistant \1's", re.DOTALL)


class ReadRow(NamedTuple):
    """A row with what is wrong with it."""

    judged: Judged
    left_out: str | None
    """Why it does not count."""
    answers: tuple[str, str] | None
    """The texts of `a` and `b`, where the row has them."""

    @property
    def is_same_answer(self) -> bool:
        """Whether an answer is compared with itself."""
        return self.answers is not None and self.answers[0] == self.answers[1]


@dataclass(frozen=True)
class JudgedFile:
    """What a file holds, and what of it does not count."""

    judged: list[Judged]
    lines: int
    broken: int
    """Lines that are no JSON object."""
    repeated: int
    """Rows that a later one with the same id replaces."""
    left_out: dict[str, int]
    """Rows that do not count, by the reason."""
    same_answers: int
    """Rows that compare an answer with itself, and count."""


def read_judged(path: str) -> JudgedFile:
    """Rows `{"id", "label", "verdict", "swapped_verdict", "retest_verdict"}`, or Arena-Hard's with `games`.

    Raises:
        UserError: The file cannot be read, no row has a verdict, or a value is none.
    """
    recorded = read(path)
    is_arena = any("games" in row for row in recorded.rows)
    if not is_arena and not any("verdict" in row for row in recorded.rows):
        raise UserError(f"{path}: no row has a verdict; a row is {{id, label, verdict}}, or Arena-Hard's with games")
    read_row: Callable[[str, Row], ReadRow] = arena_row if is_arena else _own_row
    rows = [read_row(f"{path}: row {number}", row) for number, row in enumerate(recorded.rows, 1)]
    last: dict[Hashable, ReadRow] = {row.judged.id: row for row in rows}
    counted = [row for row in last.values() if not row.left_out]
    return JudgedFile(
        judged=[row.judged for row in counted],
        lines=recorded.lines,
        broken=recorded.broken,
        repeated=len(rows) - len(last),
        left_out=dict(Counter(row.left_out for row in last.values() if row.left_out)),
        same_answers=sum(row.is_same_answer for row in counted),
    )


def _own_row(where: str, row: Row) -> ReadRow:
    replies = {name: verdict_of(row[name], f"{where}: {name}") for name in REPLIES if name in row}
    judged = Judged(hashable(row.get("id", where)), verdict_of(row.get("label"), f"{where}: label"), replies)
    return ReadRow(judged, None, None)


def verdict_of(value: object, where: str) -> Verdict | None:
    """`a`, `b`, `tie` or None.

    Raises:
        UserError: It is something else, with where it stands.
    """
    for verdict in VERDICTS:
        if value == verdict:
            return verdict
    if value is None:
        return None
    raise UserError(f"{where} {value!r} is none of {', '.join(VERDICTS)} and null")


def hashable(value: object) -> Hashable:
    """A row's id as a key of a dictionary."""
    return value if isinstance(value, Hashable) else json.dumps(value, sort_keys=True)


def arena_row(where: str, row: Row) -> ReadRow:
    """One question with its two games; in the second one, the answers change places.

    Raises:
        UserError: There are no two games.
    """
    games = row.get("games")
    if not (isinstance(games, list) and len(games) == 2 and all(isinstance(game, dict) for game in games)):
        raise UserError(f"{where}: Arena-Hard's games are two, one for each order of the answers")
    replies = {"verdict": _arena_verdict(games[0]), "swapped_verdict": other(_arena_verdict(games[1]))}
    identity = tuple(str(row.get(key)) for key in ("question_id", "model", "judge", "source"))
    answers = [answer.strip() for _, answer in _ARENA_ANSWER.findall(str(games[0].get("user_prompt")))]
    left_out = "answer_error" if ERROR in answers else None
    return ReadRow(Judged(identity, None, replies), left_out, (answers[0], answers[1]) if len(answers) == 2 else None)


def _arena_verdict(game: dict[str, Any]) -> Verdict | None:
    """What a game's score says; `A>>B` and `A>B` are one. Nothing where the judgment is empty or `$ERROR$`."""
    if isinstance(game.get("judgment"), str) and not game["judgment"].replace(ERROR, "").strip():
        return None
    found = _ARENA_VERDICT.match(str(game.get("score")))
    if not found:
        return None
    return "a" if found[1] else "b" if found[2] else "tie"


def other(verdict: Verdict | None) -> Verdict | None:
    """The verdict when the answers change places."""
    swapped: dict[Verdict, Verdict] = {"a": "b", "b": "a", "tie": "tie"}
    return swapped[verdict] if verdict else None


def notes(file: JudgedFile) -> list[str]:
    """What a person should know of the file, a line each."""
    found = {
        "no JSON object": file.broken,
        "replaced by a later one with the same id": file.repeated,
        f"with the answer {ERROR}": file.left_out.get("answer_error", 0),
    }
    lines = left_out_note(file.lines, found)
    if file.same_answers:
        lines.append(f"rows that compare an answer with itself, which count: {file.same_answers}")
    return lines
