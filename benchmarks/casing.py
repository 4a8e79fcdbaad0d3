"""Takes capitals from dialogues and restores them -> the share of words that are right, and turns/s.

    python benchmarks/casing.py ultrachat_200k.jsonl --more t0.jsonl.gz --untouched oasst.jsonl

The turns of the assistant go through `str.capitalize`, either all of a dialogue or one at a time with the others as
they are. The lexicon never saw the dialogue: it is learnt from the other half of the file and from the files in --more.
Words are what whitespace separates. Untouched turns are those of the assistant as they come, of this and of other
files.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from zephyr_ray.data.cleaning.case_lexicon import CaseCounts, CaseLexicon, count, make_lexicon
from zephyr_ray.data.cleaning.casing import restore
from zephyr_ray.data.formats import layouts
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped

Dialogue = list[Message]
BLOCK = 2000
"""Dialogues counted at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="well-cased dialogues in any known layout, as JSON lines (also .gz)")
    parser.add_argument("--more", nargs="*", default=[], help="files to learn from beside the other half")
    parser.add_argument("--untouched", nargs="*", default=[], help="files whose turns should stay")
    args = parser.parse_args()
    dialogues = read(args.data)
    halves = [dialogues[0::2], dialogues[1::2]]
    more = learn([dialogue for name in args.more for dialogue in read(name)])
    lexicons = [lexicon(more, half) for half in reversed(halves)]
    print("| dialogues | words right | turns/s |\n| --- | --- | --- |")
    for name, change, capitals_restored in (
        ("capitalized", all_at_once, False),
        ("all turns capitalized, restored", all_at_once, True),
        ("one turn capitalized, restored", one_at_a_time, True),
    ):
        show(name, halves, lexicons, change, capitals_restored)
    show(f"as they come: {Path(args.data).name}", halves, lexicons, lambda dialogue: iter([dialogue]), True)
    for name in args.untouched:
        show(f"as they come: {Path(name).name}", [read(name)], lexicons, lambda dialogue: iter([dialogue]), True)


def read(name: str) -> list[Dialogue]:
    opened = gzip.open if name.endswith(".gz") else open
    with opened(name, "rt", encoding="utf-8") as lines:
        return list(_dialogues(map(json.loads, lines)))


def learn(dialogues: list[Dialogue]) -> CaseCounts:
    counts = CaseCounts()
    for start in range(0, len(dialogues), BLOCK):
        counts.add(count(dialogues[start : start + BLOCK]))
    return counts


def lexicon(more: CaseCounts, half: list[Dialogue]) -> CaseLexicon:
    counts = learn(half)
    counts.add(more)
    return make_lexicon(counts)


def all_at_once(dialogue: Dialogue) -> Iterator[Dialogue]:
    yield [capitalized(message) if message["role"] == "assistant" else message for message in dialogue]


def one_at_a_time(dialogue: Dialogue) -> Iterator[Dialogue]:
    for number, message in enumerate(dialogue):
        if message["role"] == "assistant":
            yield [*dialogue[:number], capitalized(message), *dialogue[number + 1 :]]


def capitalized(message: Message) -> Message:
    return message | {"content": message["content"].capitalize()}


def show(
    name: str,
    halves: list[list[Dialogue]],
    lexicons: list[CaseLexicon],
    change: Callable[[Dialogue], Iterator[Dialogue]],
    is_restored: bool,
) -> None:
    """Prints a row: of one turn at a time, that turn's words count, else those of all turns of the assistant."""
    right = words = turns = 0
    seconds = 0.0
    for half, of_others in zip(halves, lexicons, strict=False):
        for dialogue in half:
            for changed in change(dialogue):
                start = time.process_time()
                restored = restore(changed, of_others) if is_restored else changed
                seconds += time.process_time() - start
                for before, given, after in zip(dialogue, changed, restored, strict=True):
                    if before["role"] == "assistant" and (change is not one_at_a_time or given is not before):
                        pairs = list(zip(before["content"].split(), after["content"].split(), strict=True))
                        right, words, turns = right + sum(a == b for a, b in pairs), words + len(pairs), turns + 1
    print(f"| {name} | {right / words:.2%} of {words} | {turns / seconds:,.0f} |", flush=True)


def _dialogues(rows: Iterator[dict[str, object]]) -> Iterator[Dialogue]:
    for row in rows:
        try:
            yield layouts.dialogue(row)["messages"]
        except Dropped:
            continue


if __name__ == "__main__":
    main()
