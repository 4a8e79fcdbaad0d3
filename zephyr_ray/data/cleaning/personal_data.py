"""Mask e-mail addresses, telephone numbers and access keys by placeholders: <EMAIL>, <PHONE>, <KEY>.

What belongs to nobody stays: addresses at domains that are reserved for examples, numbers that are kept for fiction
(555) or free of charge (hotlines), made-up ones such as 123-456-7890, and keys that their makers publish as examples.
So do IP addresses, dates, prices, ISBNs, bank and card numbers, and postal addresses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from zephyr_ray.config.cleaning import PersonalData
from zephyr_ray.data.cleaning.steps import Step
from zephyr_ray.data.formats.messages import Message

_EMAIL = re.compile(
    r"(?<![\w.%+@/-])(?P<name>[A-Za-z0-9](?:[\w.%+-]{0,62}[\w%+-])?)@(?P<host>(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})"
    r"(?![\w@-]|\.\w|:[\w/~])"
)
_EXAMPLE_NAME = re.compile(
    r"(?:your|my|the|some)?[._-]?(?:e?mails?|e?mail[._-]?address|name|user(?:name)?|address|sender|receiver|recipient"
    r"|someone|somebody|example|sample|test|foo|bar|abc|xyz|first(?:name)?[._]?last(?:name)?)\d{0,3}|your[._-]?\w*",
    re.IGNORECASE,
)
_EXAMPLE_HOST = re.compile(
    r"(?:^|\.)(?:example(?:\.[a-z]{2,6}){1,2}|(?:example|invalid|test|localhost)|(?:domain|company|companyname|test"
    r"|(?:your|my|some|any|the)-?(?:e?mail|domain|company|website|site|business|organization|server|host))\.[a-z]{2,4})$",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"(?<![\w.,/:=#$\u20ac\u00a3+(-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|(?:1[ .-]?)?(?:\((?P<area>[2-9]\d{2})\) ?|(?P<area2>[2-9]\d{2})[.-])(?P<exchange>[2-9]\d{2})[.-]\d{4}"
    r"|(?:1 )?\((?P<area3>[2-9]\d{2})\) (?P<exchange3>[2-9]\d{2}) \d{4}"
    r")(?![\w/%=]|[.,-]\d|[ .-]?\d)"
)
_CALLED = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell(?:phone)?|call(?: me| us)?|whatsapp|text me|fax|sms|dial)\b"
    r"(?: (?:number|no|is|at|on|me|us))*[.:#]*[ \t]*(?:at |on |is )?(?P<number>\(?\+?\d[\d ().-]{5,18}\d)"
    r"(?![\w/%]|[.,-]\d)",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d[\d ().-]{5}")
_FREE_OF_CHARGE = frozenset({"800", "833", "844", "855", "866", "877", "888"})
_DATE = re.compile(r"(?:19|20)\d\d[ .-]\d{1,2}[ .-]\d{1,2}|\d{1,2}[ .-]\d{1,2}[ .-](?:19|20)\d\d")

_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----.{20,8000}?"
    r"-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?<![A-Za-z0-9_/+-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255}|glpat-[\w-]{20,64}"
    r"|sk-(?:proj-|svcacct-|ant-(?:api\d\d-)?|or-v1-)?[A-Za-z0-9_-]{20,200}"
    r"|[sr]k_live_[A-Za-z0-9]{16,128}"
    r"|hf_[A-Za-z0-9]{30,64}"
    r"|xox[abeprs]-[A-Za-z0-9-]{20,255}|AIza[\w-]{35}|ya29\.[\w-]{30,255}"
    r"|eyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{16,2000}"
    r")(?![A-Za-z0-9_-])",
    re.DOTALL,
)
_KEY_STARTS = (
    "PRIVATE KEY", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-", "sk_live_",
    "rk_live_", "hf_", "xox", "AIza", "ya29.", "eyJ",
)  # fmt: skip
_SECRET = re.compile(
    r"(?P<name>aws_?secret(?:_?access)?_?key[\"']?\s{0,3}[=:]\s{0,3}[\"']?)(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    re.IGNORECASE,
)
_EXAMPLE_KEY = re.compile(r"example|your|x{6}|\*{4}|12345678|placeholder|(.)\1{7}", re.IGNORECASE)


def step(section: PersonalData) -> Step:
    """The step that a recipe's section describes."""
    return functools.partial(masked, kinds=section.mask)


def masked(messages: list[Message], *, kinds: tuple[str, ...]) -> list[Message]:
    """The messages with placeholders for the kinds of personal data that are named (`_MASK`)."""
    texts = [functools.reduce(lambda text, kind: _MASK[kind](text), kinds, message["content"]) for message in messages]
    if all(text == message["content"] for text, message in zip(texts, messages, strict=True)):
        return messages
    return [{**message, "content": text} for text, message in zip(texts, messages, strict=True)]


def _mask_emails(text: str) -> str:
    return _EMAIL.sub(_email, text) if "@" in text else text


def _email(found: re.Match[str]) -> str:
    name, host = found["name"], found["host"]
    is_product = len(name) == 1 and host[1] == "."  # of matrices: A@B.transpose
    before = found.string[max(found.start() - 200, 0) : found.start()]
    is_login = "://" in re.split(r"\s", before)[-1]
    stays = is_product or is_login or _EXAMPLE_HOST.search(host) or _EXAMPLE_NAME.fullmatch(name)
    return found[0] if stays else "<EMAIL>"


def _mask_phones(text: str) -> str:
    return _CALLED.sub(_called, _PHONE.sub(_phone, text)) if _DIGITS.search(text) else text


def _phone(found: re.Match[str]) -> str:
    area = found["area"] or found["area2"] or found["area3"]
    exchange = found["exchange"] or found["exchange3"]
    digits = re.sub(r"\D", "", found[0])
    if area is None:  # international
        is_amount = digits.endswith("000") or not 8 <= len(digits) <= 15
        return found[0] if is_amount or _is_made_up(digits) or _is_fiction(digits) else "<PHONE>"
    return found[0] if area in _FREE_OF_CHARGE or "555" in (area, exchange) or _is_made_up(digits) else "<PHONE>"


def _called(found: re.Match[str]) -> str:
    """A number that the text itself calls one, in any notation."""
    number = found["number"]
    digits = re.sub(r"\D", "", number)
    national = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    is_free = len(national) == 10 and national[:3] in _FREE_OF_CHARGE
    if not 7 <= len(digits) <= 15 or is_free or _is_made_up(digits) or _is_fiction(digits) or _DATE.fullmatch(number):
        return found[0]
    return found[0][: -len(number)] + "<PHONE>"


def _is_fiction(digits: str) -> bool:
    """Whether a number has the exchange or the area code 555 of the North American plan."""
    national = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    return (len(national) == 10 and "555" in (national[:3], national[3:6])) or (
        len(digits) == 7 and digits[:3] == "555"
    )


def _is_made_up(digits: str) -> bool:
    """Whether the digits only count up or down, or are few different ones."""
    return digits[-7:] in "01234567890123456789" or digits[-7:] in "98765432109876543210" or len(set(digits)) <= 2


def _mask_keys(text: str) -> str:
    if any(start in text for start in _KEY_STARTS):
        text = _KEY.sub(_key, text)
    return _SECRET.sub(_secret, text) if "ecret" in text or "ECRET" in text else text


def _key(found: re.Match[str]) -> str:
    is_block = found[0].startswith("-----")
    return found[0] if not is_block and (_EXAMPLE_KEY.search(found[0]) or not _is_random(found[0])) else "<KEY>"


def _secret(found: re.Match[str]) -> str:
    secret = found["secret"]
    return found[0] if _EXAMPLE_KEY.search(secret) or not _is_random(secret) else f"{found['name']}<KEY>"


def _is_random(key: str) -> bool:
    """Whether a key has many different characters, and digits or capitals among small letters, as no name has."""
    is_mixed = sum(map(str.isdigit, key)) >= 2 or (sum(map(str.isupper, key)) >= 4 and key.upper() != key)
    return is_mixed and len(set(key)) >= 10


_MASK: dict[str, Callable[[str], str]] = {"email": _mask_emails, "phone": _mask_phones, "key": _mask_keys}
