"""Self-Instruct's instructions (arXiv 2212.10560): rounds of requests that each show some of those there are.

A round's requests show seeds and instructions that earlier rounds accepted; its replies are read in the order of the
requests. So a round is a function of the rounds before it, and a run that is resumed asks for nothing again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from zephyr_ray.config.generation import SelfInstruct
from zephyr_ray.generation import replies
from zephyr_ray.generation.prompts import more_instructions
from zephyr_ray.generation.similarity import SimilarTexts
from zephyr_ray.inference.request_plan import Completion
from zephyr_ray.pipeline.fingerprints import content_id

_SEEDS_SHOWN = 0.75  # six of eight in the paper
_BARREN = 3  # rounds without a new instruction, after which there will be none


@dataclass(frozen=True)
class Request:
    """A request for instructions."""

    round: int
    number: int
    """Among the requests of its round."""
    text: str
    """What the teacher is asked."""

    @property
    def id(self) -> str:
        """The id of its row in the ledger."""
        return content_id("self_instruct", self.round, self.number)


@dataclass(frozen=True)
class Instruction:
    """An instruction that a teacher wrote."""

    text: str
    origin: str
    """round.request.place in the reply's list, each from 1."""


class Instructions:
    """The instructions that there are, and what the next round asks."""

    def __init__(self, section: SelfInstruct, run_seed: int, seeds: Sequence[str]):
        """
        Args:
            section: The method's.
            run_seed: Of the draws.
            seeds: The seeds, in an order that does not depend on where they were read.
        """
        self._section, self._run_seed, self._seeds = section, run_seed, seeds
        self._index = SimilarTexts(section.similarity)
        for seed in seeds:
            self._index.add(seed)
        self.accepted: list[Instruction] = []
        self.round = 0
        """The last round."""
        self.left_out: Counter[str] = Counter()
        """Instructions that are not used, and replies that hold none, by what they are."""
        self._barren = self._asked_for = 0

    @property
    def are_complete(self) -> bool:
        """Whether there are enough of them, or there will be no more."""
        section = self._section
        return len(self.accepted) >= section.dialogues or self.round >= section.rounds or self._barren >= _BARREN

    def next_round(self) -> list[Request]:
        """The requests of the next round: as many as show each instruction about once, and no more than are needed if
        they bring as many new ones each as those before them did."""
        section = self._section
        self.round += 1
        missing = section.dialogues - len(self.accepted)
        shows = (len(self._seeds) + len(self.accepted)) // section.shown
        new = max(1.0, section.new * len(self.accepted) / self._asked_for) if self._asked_for else section.new
        count = max(1, min(math.ceil(missing / new), shows))
        self._asked_for += count * section.new
        return [Request(self.round, number, self._question(number)) for number in range(1, count + 1)]

    def read(self, requests: Sequence[Request], completions: Sequence[Completion | None]) -> None:
        """Takes in the replies to a round; None is a request that the teacher's server refused."""
        before = len(self.accepted)
        for request, completion in zip(requests, completions, strict=True):
            for instruction in self._read(request, completion):
                if len(self.accepted) >= self._section.dialogues:
                    return
                if self._index.add(instruction.text):
                    self.accepted.append(instruction)
                else:
                    self.left_out["instructions_like_another"] += 1
        self._barren = 0 if len(self.accepted) > before else self._barren + 1

    def _read(self, request: Request, completion: Completion | None) -> Iterator[Instruction]:
        if completion is None:
            self.left_out["refused_requests_for_instructions"] += 1
            return
        found = replies.instructions(completion, self._section.new)
        self.left_out["unusable_instructions"] += found.unusable
        self.left_out["replies_without_instructions"] += not found.usable
        for place, text in enumerate(found.usable, 1):
            yield Instruction(text, f"{request.round}.{request.number}.{place}")

    def _question(self, number: int) -> str:
        section = self._section
        rng = Random(f"{self._run_seed} instructions {self.round} {number}")
        own = min(len(self.accepted), section.shown - math.ceil(section.shown * _SEEDS_SHOWN))
        seeds = min(len(self._seeds), section.shown - own)
        shown = rng.sample(self._seeds, seeds)
        shown += [each.text for each in rng.sample(self.accepted, min(len(self.accepted), section.shown - seeds))]
        rng.shuffle(shown)
        return more_instructions(shown, section.new)
