"""What is read of teachers' replies, as recorded of SmolLM2-135M-Instruct and written by hand."""

from __future__ import annotations

import pytest

from zephyr_ray.generation import replies
from zephyr_ray.inference.request_plan import Completion
from zephyr_ray.schemas import Dropped, Reason


def completion(content: str, finish_reason: str = "stop") -> Completion:
    return Completion(content, finish_reason, None)


@pytest.mark.parametrize(
    ("content", "finish_reason", "reason"),
    [
        ("The capital of France is", "length", Reason.TEACHER_CUT),
        ("", "length", Reason.TEACHER_CUT),
        (" \n", "stop", Reason.EMPTY),
        ("I'm sorry, but I can't assist with that.", "stop", Reason.TEACHER_REFUSED),
        ("As an AI language model, I cannot provide medical advice.", "stop", Reason.TEACHER_REFUSED),
        ("Sorry, I am not able to help with this request.", "stop", Reason.TEACHER_REFUSED),
        ("I’m unable to create that for you.", "stop", Reason.TEACHER_REFUSED),
        ("I cannot fulfill your request.", "stop", Reason.TEACHER_REFUSED),
    ],
)
def test_replies_that_cannot_be_used(content: str, finish_reason: str, reason: Reason) -> None:
    with pytest.raises(Dropped) as dropped:
        replies.said(completion(content, finish_reason))
    assert dropped.value.reason == reason


@pytest.mark.parametrize(
    "content",
    [
        "Sorry is a song by Justin Bieber.",
        "I can't help but notice that your second sentence has no verb.",
        "I cannot recommend this book enough.",
        "I am sorry to hear that. Have you tried to talk to her?",
        "As an AI researcher, you would first define the task.",
        '"I cannot help you," said the wolf.',
        "I cannot provide a diagnosis. " + "Still, there is a lot to say about headaches in general. " * 12,
    ],
)
def test_answers_that_only_sound_like_refusals(content: str) -> None:
    assert replies.said(completion(f"  {content}\n")) == content.strip()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("How do plants breathe?", "How do plants breathe?"),
        ('"How do plants breathe?"', "How do plants breathe?"),
        ("**New task:** Explain how plants breathe at night.", "Explain how plants breathe at night."),
        ("User: And at night?", "And at night?"),
        ("Here is “a” and “b”.", "Here is “a” and “b”."),
        ("What about fish?\n\nAssistant: Fish have gills.", "What about fish?"),
        ("The user's next message: Why?", "Why?"),
        ("<<<\nWhy is it green?\n>>>", "Why is it green?"),
        ("<<<\nTask: Why is it green?", "Task: Why is it green?"),
        ("Name the colours in order: red, blue.", "Name the colours in order: red, blue."),
    ],
)
def test_a_users_message_without_what_is_around_it(content: str, message: str) -> None:
    assert replies.user_message(completion(content)) == message


@pytest.mark.parametrize("content", ["User:", "***", "\nAssistant: Fish have gills."])
def test_a_reply_without_a_message(content: str) -> None:
    with pytest.raises(Dropped) as dropped:
        replies.user_message(completion(content))
    assert dropped.value.reason == Reason.NO_INSTRUCTION


LIST = """Here are some more tasks:

9. Write a haiku about rain.
10. **Task:** Sort these steps:
1. Boil water
2. Add tea
11. Too short
12) Draw a picture of a horse.
13. - What is it?
14. Translate "good morning" into French and"""


def test_a_numbered_list_of_instructions() -> None:
    found = replies.instructions(completion(LIST), new=8)
    assert found.usable == [
        "Write a haiku about rain.",
        "Sort these steps:\n1. Boil water\n2. Add tea",
        'Translate "good morning" into French and',
    ]
    assert found.unusable == 3


def test_a_list_that_was_cut_or_is_too_long() -> None:
    cut = replies.instructions(completion(LIST, "length"), new=8)
    assert cut.usable == ["Write a haiku about rain.", "Sort these steps:\n1. Boil water\n2. Add tea"]
    assert replies.instructions(completion(LIST), new=1).usable == ["Write a haiku about rain."]


@pytest.mark.parametrize("content", ["", "I'm sorry, but I can't assist with that.", "Sure! What about a poem?"])
def test_a_reply_without_instructions(content: str) -> None:
    assert replies.instructions(completion(content), new=8) == ([], 0)
