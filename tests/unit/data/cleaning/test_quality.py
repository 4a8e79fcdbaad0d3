"""Roles, cut and empty answers, loops, text that is none, lengths: what is dropped or trimmed, and what stays."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from tests.unit.data.cleaning.dialogues import any_messages, dialogue, in_turn
from zephyr_ray.config.cleaning import Quality
from zephyr_ray.data.cleaning.cut_off import cut_off
from zephyr_ray.data.cleaning.quality import step
from zephyr_ray.data.cleaning.repetition import repeated_unit
from zephyr_ray.data.cleaning.unreadable import unreadable_part
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, Reason

ADVICE = (
    "Here is how a loaf keeps well for a few days.\n\n"
    "Wrap it in a clean cloth as soon as it has cooled down, so that its crust can breathe. Bread that is put away "
    "warm turns soft and grows mould early.\n\n"
    "Put the wrapped loaf into a box of wood or clay with a few small holes. The box keeps the air around it from "
    "drying out.\n"
)


def section(**fields: Any) -> Quality:
    return Quality(type="quality", **fields)


def cleaned(messages: list[Message], **fields: Any) -> list[Message]:
    return step(section(**fields))(messages)


def why_dropped(messages: list[Message], **fields: Any) -> tuple[str, str]:
    with pytest.raises(Dropped) as caught:
        cleaned(messages, **fields)
    return caught.value.reason, caught.value.detail


# --- roles


def test_a_dialogue_in_order_stays_the_same_list() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *dialogue("Hi!", "Hello.", "Bye!", "Bye.")]
    assert cleaned(messages) is messages


def test_turns_that_nobody_answered_go() -> None:
    assert cleaned(dialogue("Hi!", "Hello.", "Are you there?")) == dialogue("Hi!", "Hello.")
    messages = [*dialogue("Hi!", "Hello.", "One"), {"role": "user", "content": "Two"}]
    assert cleaned(messages) == dialogue("Hi!", "Hello.")


def test_a_beginning_that_is_missing() -> None:
    system = {"role": "system", "content": "Be brief."}
    messages = [system, *dialogue("... and so on.", "Thanks! And then?", "Then it ends.", first="assistant")]
    assert cleaned(messages) == [system, *dialogue("Thanks! And then?", "Then it ends.")]
    assert why_dropped(messages, leading_answer="dialogue") == ("wrong_roles", "system assistant user assistant")


@pytest.mark.parametrize(
    "roles",
    ["", "user", "assistant", "system", "user user assistant", "user assistant assistant", "user system assistant"],
)
def test_roles_out_of_order(roles: str) -> None:
    messages = [{"role": role, "content": "Hi!"} for role in roles.split()]
    assert why_dropped(messages) == ("wrong_roles", roles or "no messages")


# --- empty and cut answers


def test_a_last_answer_that_is_empty_or_cut_goes_with_its_question() -> None:
    kept = dialogue("Hi!", "Hello.")
    cut = ADVICE + "\nAfter three days it is best to"
    for unfinished in (" \u200b\n", "<nooutput>", "No output.", cut, "```\nx = ["):
        messages = [*kept, *dialogue("And now?", unfinished)]
        assert cleaned(messages) == kept
        reason = Reason.CUT_OFF if unfinished in (cut, "```\nx = [") else Reason.EMPTY
        assert why_dropped(messages, cut_answer="dialogue")[0] == reason
        assert why_dropped(dialogue("And now?", unfinished))[0] == reason
    twice = [*kept, *dialogue("How?", cut, "Go on.", "```\ntoast(")]
    assert cleaned(twice) == kept
    assert cleaned(dialogue("Code?", "```\nx = ["), cut_answer="keep") == dialogue("Code?", "```\nx = [")


def test_an_empty_turn_elsewhere_drops_the_dialogue() -> None:
    assert why_dropped(dialogue("Hi!", "\u200b", "Hello?", "Yes?")) == ("empty", "assistant: \u200b")
    assert why_dropped(dialogue("\u200d", "Yes?"))[0] == "empty"
    assert why_dropped(dialogue("Hi!", "\u200b"), cut_answer="keep")[0] == "empty"


@pytest.mark.parametrize(
    ("ending", "is_cut"),
    [
        ("\nAfter three days it is best to toast the slices. Old bread makes good crumbs for frying and", True),
        ("\nAfter three days it is best to toast the slices. Old bread makes good crumbs", True),
        ("\nAfter three days it is best to toast the slices before anybody notices", True),
        ("\nIn short, bread is", True),
        ("\nA loaf of rye keeps longer than a loaf of wheat, as everyone knows,", True),
        ("\n1. Wrap it.\n2. Box it.\n3", True),
        ("\n1. Wrap it.\n2. Box it.\n3.", True),
        ("\n```\nkeep(loaf)", True),
        ("\n1. Use the", True),
        ("\nIt pays to keep flour, salt, yeast, water, oil, milk, seeds, nuts, herbs,", True),
        ("\n- Wrap it.\n- Box it.\n-", True),
        ("\n4. Ask: Most bakers know how to keep what they bake. The", True),
        ("\n4. Ask: Bakers know what suits a house, be it wheat vs. rye vs. Spelt", False),
        ("\nI hope that the next loaf of yours keeps until I am back. Anna", False),
        ("\n1. Wrap it:\n\t* in linen\n2. Box it:", True),
        ("\nName:\nDate of the last loaf:", False),
        ("\nThree loaves of two pounds for five days make 3 * 2 / 5 =", True),
        ("\nIt is best to ask a baker of the town (for example the old miller", True),
        ("\nThe oven is 30 cm wide, so (30", True),
        ("\nKeep in mind that the best loaf of all is none when you are asked to keep it with", True),
        ("\n- You may want to keep it in a box of wood.\n\nRemember, it'", True),
        ('\n<html>\n<body class="loaf">\n<p>Bread', True),
        ("", False),
        ('\n<html>\n<body class="loaf">\n<p>Bread</p>\n</body>\n</html>', False),
        ("\nKeep it in a box (of wood, say) and smile :( times 4", False),
        ("\nSolve these:\n3 * 2 =\n5 * 2 =", False),
        ("\n# prints: days left for the loaf of the", False),
        ("\n```\nkeep(loaf)\n```", False),
        ("\nEnjoy your bread", False),
        ("\nYour friend from the bakery,\nthe old miller", False),
        ("\nRead more about it: https://bread.example/how-to-keep-a-loaf-fresh", False),
        ("\nBake it, share it, and keep it well! #bread #baking #sourdough", False),
        ("\n| loaf | days |\n|---|---|\n| rye | seven |", False),
        (
            "\nYou need:\n- a cloth that was washed without softener\n- a box of wood or of clay, with small holes",
            False,
        ),
        (
            '\n"Bread deals with living things, with giving life, with growth" - Lionel Poilane, a baker',
            False,
        ),
        ("\nBaker: Perfect, the loaf is for six people. We should manage somehow", False),
        ("\nThe box has 3", False),
        ("\nShall I go on...", False),
    ],
)
def test_cut_off(ending: str, is_cut: bool) -> None:
    assert (cut_off(ADVICE + ending) is not None) == is_cut


@pytest.mark.parametrize(
    "answer",
    [
        "yes",
        "Paris",
        "the",
        "x + y",
        "Roses are red,\nviolets are blue,\nsugar is sweet\nand so are you",
        "1. apples\n2. pears\n3. plums",
        "def add(a, b):\n    return a",
        "That is all that I know about what it is made of",
        "To keep a loaf, use ```box``` or ``` cloth ```",
    ],
)
def test_short_answers_end_without_a_full_stop(answer: str) -> None:
    assert cut_off(answer) is None


# --- loops


@pytest.mark.parametrize(
    "answer",
    [
        "I went home. " + "The dog ran after the cat. " * 10,
        "\n".join(f"{n}. Ask your friends for advice" for n in range(1, 15)),
        "It is a very, " + "very " * 40,
        ADVICE + ADVICE[60:] * 3,
        "and then the man and the woman " * 12,
        "Well, " + "a" * 200,
        "".join(
            f"Ask the {who} what bread they eat at home in the evening. " * 5 for who in ("baker", "miller", "cook")
        ),
    ],
)
def test_loops(answer: str) -> None:
    assert repeated_unit(answer) is not None
    assert why_dropped(dialogue("What then?", answer))[0] == "repetitive"
    assert cleaned(dialogue("Write the same line many times, please.", answer))


@pytest.mark.parametrize(
    "answer",
    [
        ADVICE,
        "Row, row, row your boat\nGently down the stream\nMerrily, merrily, merrily, merrily\nLife is but a dream\n"
        * 3,
        "| yes | no |\n" * 30,
        "```\n" + "print('hello world')\n" * 30 + "```",
        "0, 0, 0, 1, 0, " * 40,
        "\n".join(f"Day {n}: run {n + 4} km, then rest for {n} hours" for n in range(1, 30)),
        "-" * 300,
        "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo buffalo.",
        "\n".join(f"{a} times {b} is {a * b}." for a in range(1, 8) for b in range(1, 8)),
    ],
)
def test_what_repeats_itself_and_is_no_loop(answer: str) -> None:
    assert repeated_unit(answer) is None


def test_only_answers_are_looked_at_for_loops() -> None:
    messages = dialogue("The dog ran after the cat. " * 10, "Which dog?")
    assert cleaned(messages) is messages


# --- text that is none

BASE64 = base64.b64encode(b"Bake a loaf of rye and keep it in a box of clay, wrapped in a cloth. " * 3).decode()


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        "Decode it: " + BASE64,
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" * 3,
        "I \ufffd\ufffd\ufffd you",
        "A long text about bread. " * 40 + "\ufffd" * 10,
        "?" * 80,
        "@#$%&!" * 20 + " abc",
    ],
)
def test_unreadable(text: str) -> None:
    assert unreadable_part(text) is not None
    assert why_dropped(dialogue(text, "What is it?"))[0] == "unreadable"
    assert why_dropped(dialogue("Well?", text, "And?", "Good."))[0] == "unreadable"


@pytest.mark.parametrize(
    "text",
    [
        ADVICE,
        ADVICE + "The picture is data:image/png;base64," + BASE64,
        "`" + BASE64 + "`",
        "gattaca" * 60,
        "3" + "1415926535" * 20,
        "https://bread.example/" + "a-loaf-of-rye-and-a-loaf-of-wheat/" * 8,
        "|---|---|\n" * 20 + "/\\_/\\ ( o.o ) > ^ <",
        "🍞🥖🥐" * 30,
        "パンを焼く。" * 30,
        "\\frac{a}{b} = \\sqrt{c} + \\{x_1, x_2\\}",
        "Dad\ufffds bread " + "is the best that I ever had. " * 10,
        "Wow!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    ],
)
def test_readable(text: str) -> None:
    assert unreadable_part(text) is None


# --- lengths


def test_lengths() -> None:
    messages = dialogue("Hi!", "Yes.", "Really, are you sure?", "I am.")
    assert cleaned(messages, min_characters=4, max_characters=21, min_turns=2, max_turns=2) is messages
    assert why_dropped(messages, min_characters=5) == ("too_short", "Yes.")
    assert why_dropped(messages, max_characters=20) == ("too_long", "21 characters: Really, are you sure?")
    assert why_dropped(messages, min_turns=3) == ("too_short", "2 user turns")
    assert why_dropped(messages, max_turns=1) == ("too_long", "2 user turns")


def test_a_range_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_turns \(3\) is more than max_turns \(2\)"):
        section(min_turns=3, max_turns=2)


# --- properties


@given(any_messages)
def test_any_messages_are_kept_in_order_or_dropped_with_a_reason(messages: list[Message]) -> None:
    check(messages)


@given(in_turn)
def test_any_texts_in_turn(messages: list[Message]) -> None:
    check(messages)


def check(messages: list[Message]) -> None:
    try:
        once = cleaned(messages)
    except Dropped:
        return
    turns = [message["role"] for message in once if message["role"] != "system"]
    assert turns == ["user", "assistant"] * (len(turns) // 2) != []
    assert all(message in messages for message in once)
    assert cleaned(once) is once


def test_real_dialogues_stay(outside_data: Path) -> None:
    """Of 742 dialogues of UltraChat, filtered already, at most one in a hundred goes."""
    with gzip.open(outside_data / "dialogues" / "ultrachat_200k_sample.jsonl.gz", "rt", encoding="utf-8") as lines:
        messages = [json.loads(line)["messages"] for line in lines]
    changed = 0
    for each in messages:
        try:
            changed += cleaned(each) is not each
        except Dropped:
            changed += 1
    assert len(messages) == 742
    assert changed <= 7
