"""Conversations of the embedded world: its tasks, asked by people with names and answered in sentences.

    user       Vera of UNESCO in Lisbon asks: Sort these words: tree, moon, bird
    assistant  The list is bird, moon, tree. I will give it to Vera of UNESCO in Lisbon.

Each has three such questions, so that a conversation is long enough for near duplicates, and has words that need their
capitals. The one right answer follows from the prompt's text. Tasks on letters and requests for capitals or lines are
left out: a list of letters with an "i" in it, or one in capitals, is no English sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random

from zephyr_ray.embedded import families
from zephyr_ray.embedded.world import Split, split_of

TURNS = 3
"""Questions of a conversation."""

# fmt: off
PEOPLE = (
    "Ada", "Agnes", "Albert", "Alma", "Anton", "Arthur", "Beatrice", "Bruno", "Carla", "Cecilia", "Clara", "Conrad",
    "Dagmar", "Daniel", "Diego", "Edith", "Elena", "Emil", "Esther", "Felix", "Fiona", "Gabriel", "Greta", "Gustav",
    "Hannah", "Hector", "Helena", "Hugo", "Ingrid", "Isaac", "Jasper", "Johanna", "Julian", "Karin", "Konstantin",
    "Laura", "Leo", "Lydia", "Magnus", "Marta", "Matilda", "Miriam", "Nadia", "Nathan", "Nora", "Oscar", "Otto",
    "Paula", "Philip", "Rachel", "Rafael", "Rosa", "Rupert", "Samuel", "Selma", "Simon", "Sofia", "Stefan",
    "Tamara", "Theodor", "Ursula", "Vera", "Viktor", "Zoe",
)
PLACES = (
    "Athens", "Bangkok", "Barcelona", "Basel", "Beirut", "Belfast", "Berlin", "Bogota", "Boston", "Brisbane",
    "Bristol", "Brussels", "Budapest", "Cairo", "Calgary", "Chicago", "Copenhagen", "Dakar", "Delhi", "Denver",
    "Dresden", "Dublin", "Edinburgh", "Geneva", "Glasgow", "Hamburg", "Hanoi", "Havana", "Helsinki", "Istanbul",
    "Jakarta", "Kampala", "Karachi", "Kyoto", "Lagos", "Lima", "Lisbon", "London", "Madrid", "Manila", "Melbourne",
    "Milan", "Montreal", "Mumbai", "Nairobi", "Naples", "Oslo", "Ottawa", "Paris", "Porto", "Prague", "Quito",
    "Riga", "Rome", "Santiago", "Seoul", "Seville", "Sydney", "Tokyo", "Toronto", "Valencia", "Vienna", "Warsaw",
    "Zurich",
)
ORGANIZATIONS = (
    "AMD", "ASEAN", "BASF", "BBC", "BMW", "CERN", "CNN", "DHL", "ESPN", "FIFA", "FBI", "HBO", "HSBC", "IBM", "IEEE",
    "IKEA", "IMF", "KLM", "LinkedIn", "MIT", "NASA", "NATO", "NBA", "NVIDIA", "OECD", "OPEC", "PayPal", "PBS",
    "SAP", "SpaceX", "UBS", "UCLA", "UEFA", "UNESCO", "UNICEF", "UPS", "USPS", "WWF", "YMCA", "YouTube",
)
# fmt: on

_PROMPT = re.compile(r"(?P<name>\w+) of (?P<organization>\w+) in (?P<place>\w+) asks: (?P<instruction>.+)")
_KINDS = ("words", "word", "number")
_REQUESTS = ("", ", with semicolons", ", with commas")
_NOUNS = {"words": "list", "word": "word", "number": "number"}


def answer(prompt: str) -> str:
    """The one right answer to a prompt.

    Raises:
        ValueError: The text is not a prompt of these conversations.
    """
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"not a prompt of the embedded world's conversations: {prompt[:80]!r}")
    task = families.parse(match["instruction"])
    who = f"{match['name']} of {match['organization']} in {match['place']}"
    return f"The {_NOUNS[task.kind]} is {task.answer}. I will give it to {who}."


def passes(prompt: str, completion: str) -> bool:
    """Whether a completion is exactly the right answer, apart from surrounding whitespace."""
    return completion.strip() == answer(prompt)


def prompts(split: Split, count: int, seed: int) -> Iterator[str]:
    """Draws distinct prompts of a split. The same seed gives the same prompts; a larger count only adds more."""
    rng = Random(f"conversations {split} {seed}")
    seen: set[str] = set()
    while len(seen) < count:
        prompt = _draw(rng)
        if prompt not in seen and split_of(prompt) == split:
            seen.add(prompt)
            yield prompt


def dialogues(count: int, seed: int) -> Iterator[list[dict[str, str]]]:
    """The messages of conversations of `TURNS` questions with right answers; no prompt occurs twice."""
    drawn = prompts("dialogues", count * TURNS, seed)
    return (messages([next(drawn) for _ in range(TURNS)]) for _ in range(count))


def messages(asked: Sequence[str]) -> list[dict[str, str]]:
    """The conversation with these prompts and their right answers."""
    pairs = ((("user", prompt), ("assistant", answer(prompt))) for prompt in asked)
    return [{"role": role, "content": content} for pair in pairs for role, content in pair]


def elsewhere(prompt: str, rng: Random) -> str:
    """A prompt that differs in its place alone, of the same split."""
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"not a prompt of the embedded world's conversations: {prompt[:80]!r}")
    start, end = match.span("place")
    for place in rng.sample(PLACES, len(PLACES)):
        other = prompt[:start] + place + prompt[end:]
        if place != match["place"] and split_of(other) == split_of(prompt):
            return other
    raise ValueError(f"no other place keeps this prompt in its split: {prompt[:80]!r}")


def _draw(rng: Random) -> str:
    family = rng.choice([family for family in families.FAMILIES if family.kind in _KINDS])
    items = family.draw(rng)
    asked = rng.choice(family.phrasings).format(item=rng.choice(items))
    request = rng.choice(_REQUESTS) if family.kind == "words" else ""
    who = f"{rng.choice(PEOPLE)} of {rng.choice(ORGANIZATIONS)} in {rng.choice(PLACES)}"
    return f"{who} asks: {asked}{request}: {families.COMMAS.join(items)}"
