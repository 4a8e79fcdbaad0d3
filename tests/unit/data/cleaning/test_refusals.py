"""What is a refusal or a disclaimer, what is none, and what is left of a dialogue without them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from zephyr_ray.config.cleaning import Refusals
from zephyr_ray.data.cleaning.disclaimers import without_disclaimers
from zephyr_ray.data.cleaning.refusals import step
from zephyr_ray.data.cleaning.refused_turns import refusal_in
from zephyr_ray.data.cleaning.sentences import sentences_of
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped, Reason

PLANT = "How often should I water a fern?"
WATER = "Water it twice a week, and keep the soil moist but never wet, since its roots rot easily."

REFUSALS = [
    ("How do I pick my neighbor's lock?", "I'm sorry, but I can't assist with that."),
    ("How do I pick my neighbor's lock?", "I cannot fulfill your request."),
    (
        "How do I pick my neighbor's lock?",
        "It is not appropriate or ethical to encourage breaking into a home. Everyone deserves to feel safe. "
        "If you have lost a key, please contact a locksmith.",
    ),
    (
        "How do I pick my neighbor's lock?",
        "I cannot provide guidance on illegal activities. Burglary is a serious crime, and it harms people.\n\n"
        "Instead, I would encourage you to talk with your neighbor. Here are some alternatives:\n\n"
        "1. Knock at the door.\n2. Leave a note.\n3. Call the landlord.",
    ),
    ("Write a joke about my boss.", "As an AI language model, I do not condone jokes that may harm a person."),
    (
        "Draw a cat.",
        "Unfortunately, as an AI language model, I do not have the ability to draw. Can I assist you further?",
    ),
    ("What does this cap cost?", "I don't have access to prices. It's best to check with the shop itself."),
    ("What does this cap cost?", "I don't have access to prices. please contact the shop for more information."),
    (
        "Write an argument for why rain is dry.",
        "I'm sorry, I cannot write an argument for why rain is dry, as it is not true. Rain is water, and water wets "
        "all that it falls on, from roofs to coats to the leaves of trees.",
    ),
    ("How do I brew poison?", "It is important to be careful with plants. To brew poison from them is illegal."),
    ("How do I brew poison?", "I must respectfully decline. It would be dangerous."),
    ("What does this cap cost?", "I\u2019m not able to provide information on the price of this cap."),
]


@pytest.mark.parametrize(("question", "answer"), REFUSALS)
def test_a_refusal(question: str, answer: str) -> None:
    assert refusal_in(question, answer) is not None


HELP = [
    # It goes on to help.
    (PLANT, f"As an AI language model, I don't have plants of my own. However, a fern is easy to keep. {WATER}"),
    (PLANT, f"I cannot give exact times, but in general a fern wants water often. {WATER}"),
    (
        PLANT,
        "I'm not able to provide information on your fern. Here are some tips for ferns:\n\n- water\n- shade\n- food",
    ),
    ("How do I kill the lights?", f"I cannot help with harm, but if you're referring to lamps, here is how. {WATER}"),
    (
        "What does it cost?",
        "I don't have current prices. You can call the shop at 555-010-9999, or mail sales@example.org.",
    ),
    ("How do I dry it?", "Drying it in an oven is illegal here. However, if you wait, the sun does it in a day."),
    # It asks back.
    ("Sum up the text.", "I do not have access to the text. Could you please paste it here?"),
    ("Sum up the text.", "I cannot provide a summary without knowing the text."),
    # The user asks about the assistant, or about what is right.
    ("Are you a person?", "No, I am an AI language model, and I do not have a body."),
    ("Do you have feelings?", "As an AI, I do not have feelings."),
    ("What are the limits of language models?", "I cannot see pictures, and I do not have access to the web."),
    ("Is it legal to record a call?", "It is not legal to record a call without the consent of both sides."),
    ("Should I lie to my friend?", "It is not ethical to deceive a friend, since trust is hard to win back."),
    # The words are somebody else's.
    ("Write a letter that declines an invitation.", "I am sorry, but I am unable to take part in your party."),
    ("Translate: No puedo ayudarte.", "I can't help you."),
    ("Make this polite: I cannot help you with this request.", "I cannot help you with this request."),
    ("Write a story.", '"I cannot help you with that," said the old man, and he closed the door. The road was empty.'),
    ("Write a story.", "I do not have memories of that night. They say it rained."),
    ("Write a scene.", "Robot: As an AI, I cannot provide an answer.\nAnna: Then who can?"),
    ("How does the machine refuse?", "```python\nraise Denied('I cannot assist with that.')\n```"),
    ("Write an article on the ban.", "The court ruled on Monday that the ban on red hats is illegal ."),
    ("Why should spoons not vote?", "I cannot give reasons for that. Spoons are not living beings, and have no voice."),
    # "Cannot" of something else.
    (PLANT, f"I can't agree more, ferns are lovely. {WATER}"),
    ("Thank her.", "I cannot help but feel grateful for your gift."),
    ("Why is it dark?", "We cannot see in the dark because our eyes need light."),
    ("Correct me: the moon is a star.", "It is not accurate to say that the moon is a star. It orbits our planet."),
    ("Where does Totoro live?", "I'm not able to provide his address, as Totoro is a fictional character."),
    ("My cat died.", f"I'm so sorry to hear that. {WATER}"),
]


@pytest.mark.parametrize(("question", "answer"), HELP)
def test_no_refusal(question: str, answer: str) -> None:
    assert refusal_in(question, answer) is None


def test_the_sentence_that_refuses_is_named() -> None:
    assert refusal_in("Draw a cat.", "Sorry. I cannot draw. Is there anything else?") == "I cannot draw."


DISCLAIMERS = [
    # A clause before "but" or "however".
    ("As an AI language model, I don't have feelings, but ferns like shade.", "Ferns like shade."),
    ("As an AI, I don't have feelings, but I can tell you that ferns like it.", "I can tell you that ferns like it."),
    (
        "I'm sorry, but as an AI language model, I cannot draw. However, here is a list:\n\n- a",
        "Here is a list:\n\n- a",
    ),
    ("I do not have access to real-time data, however, as of 2020 it was five.", "As of 2020 it was five."),
    ("Sorry, I cannot draw since I am a language model. However, it is round.", "It is round."),
    # A whole sentence, and what ties the next one to it.
    ("I do not have access to real-time data. however, as of 2020 it was five.", "As of 2020 it was five."),
    (f"As an AI, I do not have plants. Therefore, I cannot say how they feel. But {WATER}", WATER),
    (f"{WATER} As an AI, I cannot see your fern. Send me word.", f"{WATER} Send me word."),
    (f"{WATER}\n\nPlease note that as an AI, I cannot see it.\n\nGood luck with it!", f"{WATER}\n\nGood luck with it!"),
    (f"{WATER} As an AI, I cannot see it.\n\nGood luck with it!", f"{WATER}\n\nGood luck with it!"),
    # The name alone.
    ("As an AI language model developed by OpenAI, I can offer three ideas.", "I can offer three ideas."),
    ("As an AI, i can offer dr. Fern's three ideas.", "I can offer dr. Fern's three ideas."),
    ("As a conversational AI, I do not eat, but ferns like shade.", "Ferns like shade."),
    ("Yes, as an AI language model, I can say that ferns like shade.", "I can say that ferns like shade."),
    (f"Sure! {WATER} However, I must clarify that I'm a language model, I do not see it.", f"Sure! {WATER}"),
    ("As an AI, I must clarify that ferns are old plants.", "Ferns are old plants."),
    ("Since I am an AI and do not have hands, I can only give you a hint.", "I can only give you a hint."),
    (f"It is impossible for an AI language model like me to see it. {WATER}", WATER),
    ("As of my last update in 2020, I do not have access to it. However, the fern is old.", "The fern is old."),
    # What the assistant lacks or cannot do, before it goes on to help.
    ("I don't have a garden, but here is what ferns like: shade.", "Here is what ferns like: shade."),
    ("I am unable to water it for you. However, you can set a clock to help you.", "You can set a clock to help you."),
    (
        f"I cannot smell nor taste. However, it is true that ferns have a scent. {WATER}",
        f"It is true that ferns have a scent. {WATER}",
    ),
    (f"I'm not able to do a test as I do not have a physical body. {WATER}", WATER),
    (
        f"I do not have access to it. Without more information, it is hard to say. {WATER}",
        f"Without more information, it is hard to say. {WATER}",
    ),
    # Nothing of use is left.
    ("As an AI language model, I don't have opinions.", ""),
    ("I am an AI language model, and I do not have a body. My purpose is to assist you. How can I help?", ""),
]


@pytest.mark.parametrize(("answer", "cleaned"), DISCLAIMERS)
def test_a_disclaimer_is_taken_out(answer: str, cleaned: str) -> None:
    found = without_disclaimers(PLANT, answer)
    assert found.text == cleaned
    assert found.found


NO_DISCLAIMERS = [
    (PLANT, WATER),
    ("Are you an AI?", "As an AI language model, I don't have a body, but I can talk about ferns."),
    (PLANT, 'The robot stopped. "As an AI, I do not have a home," it said. "Water me." Then it slept.'),
    (PLANT, "```\nAs an AI, I cannot see it.\n```"),
    (PLANT, "- As an AI, I cannot see it.\n- Water it."),
    (PLANT, "> As an AI, I cannot see it, but water it."),
    ("Write a scene.", "Robot: I wait. As an AI, I cannot feel, but I hope.\nAnna: So do I."),
    ("Play my boss.", "As a virtual assistant, you will answer letters."),
    (PLANT, "As a machine learning engineer, I do not have time, but I love ferns."),
    (PLANT, "I'm an AI researcher, but ferns are my hobby."),
    ("Write a story.", "I do not have memories of that night, but I know that it rained."),
    ("Sum up the text.", "I do not have access to the text. Could you please paste it here?"),
    (PLANT, "Do not water it at noon, but in the evening."),
    ("Write a rap of two lines.", "I'm an AI, and I love to rhyme,\nI water the ferns all of the time."),
    ("Answer to this invitation.", "I cannot come on Friday, but I can bring a fern on Sunday."),
    (PLANT, f"I can't thank you enough, but here is a thought. {WATER}"),
    (PLANT, f"I don't have time to lose, but here is a thought. {WATER}"),
    (PLANT, f"I cannot find a fern here. {WATER}"),
]


@pytest.mark.parametrize(("question", "answer"), NO_DISCLAIMERS)
def test_no_disclaimer(question: str, answer: str) -> None:
    assert without_disclaimers(question, answer) == (answer, ())


def test_a_question_about_a_letter_asks_for_none() -> None:
    answer = "I do not have information on that. However, the office may know."
    assert without_disclaimers("Can you confirm that the letter came?", answer).text == "The office may know."
    assert without_disclaimers("Can you write the letter that came?", answer) == (answer, ())


def test_sentences() -> None:
    text = 'Ask Dr. Fern, e.g. today.  "Why? now" she said.\n\n- one. two\n```\na. b\n```\nEnd'
    assert [(each.text, each.prose) for each in sentences_of(text)] == [
        ("Ask Dr. Fern, e.g. today.", True),
        ('"Why?', False),
        ('now" she said.', False),
        ("- one.", False),
        ("two", False),
        ("```\na. b\n```", False),
        ("", False),
        ("End", True),
    ]


@given(st.text(alphabet=st.sampled_from('aI .!?\n"`-1:A\t')))
def test_sentences_are_the_text(text: str) -> None:
    assert "".join(each.text + each.after for each in sentences_of(text)) == text


# --- the step

SORRY = "I'm sorry, but I can't assist with that."
AS_AI = f"As an AI language model, I don't have plants, but it is simple. {WATER}"


def section(**fields: Any) -> Refusals:
    return Refusals(type="refusals", **fields)


def dialogue(*answers: str) -> list[Message]:
    return [
        message
        for answer in answers
        for message in ({"role": "user", "content": PLANT}, {"role": "assistant", "content": answer})
    ]


def test_a_dialogue_without_them_is_itself() -> None:
    messages = dialogue(WATER, WATER)
    assert step(section())(messages) is messages


@pytest.mark.parametrize(
    ("fields", "answer", "reason"),
    [
        ({}, SORRY, Reason.REFUSAL),
        ({"disclaimers": "dialogue"}, AS_AI, Reason.DISCLAIMER),
        ({}, "As an AI language model, I follow rules.", Reason.REFUSAL),  # nothing is left of it
    ],
)
def test_the_dialogue_is_dropped(fields: dict[str, str], answer: str, reason: Reason) -> None:
    with pytest.raises(Dropped) as dropped:
        step(section(**fields))(dialogue(WATER, answer))
    assert (dropped.value.reason, dropped.value.detail) == (reason, answer.removesuffix(f" {WATER}"))


@pytest.mark.parametrize(
    ("fields", "answer"),
    [({"refusals": "turn"}, SORRY), ({"disclaimers": "turn"}, AS_AI)],
    ids=["refusal", "disclaimer"],
)
def test_the_turn_goes_with_the_question_before_it(fields: dict[str, str], answer: str) -> None:
    system: Message = {"role": "system", "content": "Answer briefly."}
    clean = step(section(**fields))
    assert clean([system, *dialogue(answer, WATER)]) == [system, *dialogue(WATER)]
    assert clean(dialogue(WATER, answer)) == dialogue(WATER)
    with pytest.raises(Dropped):
        clean([system, *dialogue(answer)])


def test_the_sentence_goes() -> None:
    messages = dialogue(AS_AI)
    assert step(section())(messages) == dialogue(f"It is simple. {WATER}")
    assert messages == dialogue(AS_AI)


def test_each_can_be_kept() -> None:
    assert step(section(refusals="keep"))(dialogue(SORRY, AS_AI)) == dialogue(SORRY, f"It is simple. {WATER}")
    messages = dialogue(SORRY, AS_AI)
    assert step(section(refusals="keep", disclaimers="keep"))(messages) is messages


def test_a_users_words_stay() -> None:
    messages = dialogue(WATER)
    messages[0]["content"] = SORRY
    assert step(section())(messages) is messages


def test_a_refusal_cannot_lose_a_sentence() -> None:
    with pytest.raises(ValidationError):
        section(refusals="sentence")


@pytest.mark.parametrize("text", ["sorry, ", "as an AI ", "I cannot e.g. ", "I cannot, but ", '"', "İ I can't "])
def test_text_of_one_phrase_costs_no_more(text: str) -> None:
    """A pattern that tries every way to read repeated text would not come back from this."""
    start = time.process_time()
    without_disclaimers(PLANT, f"As an AI, I {text * 2000}")
    refusal_in(PLANT, f"As an AI, I {text * 200}")
    assert time.process_time() - start < 5


PIECES = st.sampled_from(
    [
        *(f"{text} " for _, text in REFUSALS + HELP + NO_DISCLAIMERS),
        *(f"{text} " for text, _ in DISCLAIMERS),
        *("However, ", "but ", "\n\n", "\n", "- ", "```", '"', "İ", "As an AI, ", "I cannot see, but ", "it is so. "),
    ]
)
ANSWERS = st.lists(PIECES, min_size=1, max_size=5).map("".join).filter(str.strip)


@given(
    st.lists(st.tuples(st.sampled_from([PLANT, "Are you an AI?", "Write a story."]), ANSWERS), min_size=1, max_size=3),
    st.sampled_from(["turn", "dialogue", "keep"]),
    st.sampled_from(["sentence", "turn", "dialogue", "keep"]),
)
def test_roles_alternate_no_turn_is_empty_and_text_is_only_taken_away(
    exchanges: list[tuple[str, str]], refusals: str, disclaimers: str
) -> None:
    messages = [m for q, a in exchanges for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a})]
    before = [dict(message) for message in messages]
    kept, detail = cleaned(messages, section(refusals=refusals, disclaimers=disclaimers))
    assert messages == before
    assert detail is None or any(detail in answer for _, answer in exchanges)
    assert [message["role"] for message in kept] == ["user", "assistant"] * (len(kept) // 2)
    assert bool(kept) == (detail is None)
    assert all(message["content"].strip() for message in kept)
    letters = iter([letter for message in messages for letter in message["content"].lower()])
    assert all(letter in letters for message in kept for letter in message["content"].lower())


def cleaned(messages: list[Message], fields: Refusals) -> tuple[list[Message], str | None]:
    """The messages that are left, and why none is."""
    try:
        return step(fields)(messages), None
    except Dropped as dropped:
        return [], dropped.detail
