"""Refuse prompts that contain a benchmark's prompt.

A model that was trained on a benchmark's questions cannot be measured with it. UltraFeedback's prompts, for example,
contain TruthfulQA's (see the data card of its cleaned release). A prompt is contaminated if one of its user messages

    contains a whole benchmark prompt of at least `SHORTEST` words, or
    shares a run of `words` words with one.

Words are compared without case, punctuation and whitespace. Benchmark prompts and runs of words are looked up by the
hash of their first few words, so a message costs one look-up per word, however many benchmarks there are.
"""

from __future__ import annotations

import ast
import functools
import gzip
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zephyr_ray.data.formats.messages import Message
from zephyr_ray.data.io.readers import open_uri
from zephyr_ray.errors import UserError
from zephyr_ray.pipeline.fingerprints import content_id
from zephyr_ray.schemas import Dropped, Reason

SHORTEST = 5  # words; shorter ones, such as "what is your name", occur in any data and prove nothing
_KEYS = ("turns", "instruction", "prompt", "question")
# A run of letters or digits; in a script without spaces between words each character is a word.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_APOSTROPHES = re.compile("['\u2019]")
_ASCII = {code: None if chr(code) == "'" else " " for code in range(128) if not chr(code).isalnum()}

Words = tuple[str, ...]


class BenchmarkPrompt(NamedTuple):
    file: str
    line: int
    """Line or array element, from 1."""
    text: str


@dataclass(frozen=True)
class Benchmarks:
    """Benchmark prompts and the length of a run of words that must not be shared with them. Small and picklable."""

    prompts: tuple[BenchmarkPrompt, ...]
    words: int

    def index(self) -> BenchmarkIndex:
        """The index that finds them in a prompt, built once per process; call it once per batch of rows."""
        return _cached_index(self)


class BenchmarkIndex:
    """Benchmark prompts and runs of their words, by their first words."""

    def __init__(self, benchmarks: Benchmarks):
        self._prompts = benchmarks.prompts
        self._first_words = min(SHORTEST, benchmarks.words)
        self._wanted: dict[Words, list[tuple[Words, int]]] = {}
        for number, prompt in enumerate(benchmarks.prompts):
            for wanted in _word_runs(words_of(prompt.text), benchmarks.words):
                self._wanted.setdefault(wanted[: self._first_words], []).append((wanted, number))

    def check(self, messages: Sequence[Message]) -> None:
        """Refuses a contaminated prompt.

        Raises:
            Dropped: The prompt is contaminated; the detail names the benchmark's file and line.
        """
        found = self.find(messages)
        if found is not None:
            raise Dropped(Reason.CONTAMINATED, f"{found.file}:{found.line}: {found.text}")

    def find(self, messages: Sequence[Message]) -> BenchmarkPrompt | None:
        """The first benchmark prompt that a user message contains or shares a run of words with, or None."""
        for message in messages:
            if message["role"] == "user":
                number = self._find_first(words_of(message["content"]))
                if number is not None:
                    return self._prompts[number]
        return None

    def _find_first(self, words: list[str]) -> int | None:
        """The number of the benchmark prompt whose words occur first in the text, or None."""
        starts = [words[offset:] for offset in range(self._first_words)]
        if self._wanted.keys().isdisjoint(zip(*starts, strict=False)):  # almost always, and without a Python loop
            return None
        for start, first_words in enumerate(zip(*starts, strict=False)):
            for wanted, number in self._wanted.get(first_words, ()):
                if tuple(words[start : start + len(wanted)]) == wanted:
                    return number
        return None


def read_benchmarks(files: Sequence[str], words: int) -> Benchmarks | None:
    """The prompts of benchmark files, or None if no file is named. For the driver.

    Args:
        files: Paths or URIs: JSON lines (.jsonl) or a JSON array (.json), .gz of both, with `turns` (MT-Bench),
            `instruction` (AlpacaEval), `prompt` or `question`; any other file is text with a prompt in each line,
            plain or as a Python literal (TruthfulQA).
        words: Length of a run of words that must not be shared.

    Raises:
        UserError: A file is missing, cannot be read, or holds something else.
    """
    if not files:
        return None
    return Benchmarks(tuple(prompt for name in files for prompt in _read_prompts(name)), words)


def benchmark_fingerprints(files: Sequence[str]) -> dict[str, str]:
    """{"decontaminate": fingerprint}, or empty if no file is named. Raises as `describe_benchmarks`."""
    return {"decontaminate": describe_benchmarks(files)} if files else {}


def describe_benchmarks(files: Sequence[str]) -> str:
    """A fingerprint of the files' content.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    return content_id([_read_text(name) for name in files])


def words_of(text: str) -> list[str]:
    """The words of a text, normalized for comparison."""
    if text.isascii():  # same result, but faster
        return text.lower().translate(_ASCII).split()
    return _WORD.findall(_APOSTROPHES.sub("", text.casefold()))


@functools.lru_cache(maxsize=4)
def _cached_index(benchmarks: Benchmarks) -> BenchmarkIndex:
    return BenchmarkIndex(benchmarks)


def _word_runs(words: list[str], run: int) -> Iterator[Words]:
    if SHORTEST <= len(words) < run:
        yield tuple(words)
    for start in range(len(words) - run + 1):  # a text that contains a longer prompt shares a run with it
        yield tuple(words[start : start + run])


# --- reading


def _read_prompts(name: str) -> list[BenchmarkPrompt]:
    text = _read_text(name)
    is_json = re.search(r"\.(jsonl?|ndjson)(\.gz)?$", name, re.IGNORECASE)
    rows = _json_rows(name, text) if is_json else _text_rows(text)
    file = posixpath.basename(name)
    prompts = [
        BenchmarkPrompt(file, line, prompt) for line, row in rows for prompt in _prompts_of(row, f"{name}:{line}")
    ]
    if not prompts:
        raise UserError(f"{name} holds no benchmark prompt")
    return prompts


def _read_text(name: str) -> str:
    filesystem, path = open_uri(name)
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            data = stream.read()
        return (gzip.decompress(data) if name.lower().endswith(".gz") else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(
            f"{name} is no text in UTF-8; preferences.decontaminate takes JSON lines, JSON or text"
        ) from None
    except (OSError, EOFError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]
        raise UserError(f"preferences.decontaminate: {name} cannot be read: {reason}") from None


def _json_rows(name: str, text: str) -> Iterable[tuple[int, Any]]:
    if text.lstrip().startswith("["):
        return list(enumerate(_parse_json(text, name), 1))
    lines = enumerate(text.split("\n"), 1)
    return [(number, _parse_json(line, f"{name}:{number}")) for number, line in lines if line.strip()]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None


def _text_rows(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parse_literal(line.strip())


def _parse_literal(line: str) -> Any:
    """The value of a line that is a Python string or dict literal; otherwise the line."""
    if line[0] not in "'\"{":
        return line
    try:
        value = ast.literal_eval(line)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return line
    return value if isinstance(value, (str, Mapping)) else line


def _prompts_of(row: Any, where: str) -> list[str]:
    value = next((row[key] for key in _KEYS if key in row), None) if isinstance(row, Mapping) else row
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    if not texts or (isinstance(value, list) and len(texts) < len(value)):
        raise UserError(f"{where} has no prompt: give text, or one of the keys {', '.join(_KEYS)}")
    return texts
