"""Dialogues in other languages are dropped; translations, code and short turns stay."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from pydantic import ValidationError

from tests.unit.data.cleaning.dialogues import any_messages, dialogue
from zephyr_ray.config.cleaning import LANGUAGES, Language
from zephyr_ray.data.cleaning.language import detector, language_of, step
from zephyr_ray.data.formats.messages import Message
from zephyr_ray.schemas import Dropped

ENGLISH = "The library closes at six o'clock on Friday because the heating is being repaired."
LIBRARY = {
    "de": "Die Bibliothek schließt am Freitag schon um sechs Uhr, weil die Heizung repariert wird.",
    "fr": "La bibliothèque ferme à six heures vendredi parce qu'on répare le chauffage.",
    "es": "La biblioteca cierra el viernes a las seis porque están arreglando la calefacción.",
    "it": "La biblioteca chiude venerdì alle sei perché stanno riparando il riscaldamento.",
    "pt": "A biblioteca fecha na sexta-feira às seis porque o aquecimento está sendo consertado.",
    "nl": "De bibliotheek sluit vrijdag al om zes uur omdat de verwarming wordt gerepareerd.",
    "pl": "Biblioteka zamyka się w piątek o szóstej, ponieważ naprawiane jest ogrzewanie.",
    "ru": "Библиотека закрывается в пятницу в шесть часов, потому что чинят отопление.",
    "tr": "Kütüphane cuma günü ısıtma onarıldığı için saat altıda kapanıyor.",
    "zh": "图书馆星期五六点关门，因为暖气正在维修。请提前归还您的书籍。",
    "ja": "暖房の修理のため、図書館は金曜日は六時に閉まります。",
    "ar": "تغلق المكتبة يوم الجمعة في الساعة السادسة بسبب إصلاح التدفئة.",
}
CODE = "```python\nfor name in names:\n    print(name.upper(), len(name))\n```"


def is_kept(messages: list[Message], *keep: str) -> bool:
    clean = step(Language(type="language", keep=keep or ("en",)))
    try:
        assert clean(messages) is messages
    except Dropped:
        return False
    return True


@pytest.mark.parametrize("code", LIBRARY)
def test_one_sentence_is_enough(code: str) -> None:
    text = LIBRARY[code]
    found = language_of(text)
    assert found is not None
    assert (found.language, found.is_certain) == (code, True)
    assert not is_kept(dialogue(text, text))
    assert not is_kept(dialogue("42", text))
    assert not is_kept(dialogue(text, "42"))
    assert is_kept(dialogue(text, text), "en", code)


def test_what_is_dropped_names_the_language_and_the_text() -> None:
    with pytest.raises(Dropped) as caught:
        step(Language(type="language"))(dialogue(LIBRARY["de"], LIBRARY["de"]))
    assert caught.value.reason == "other_language"
    assert caught.value.detail == f"de: {LIBRARY['de']}"


@pytest.mark.parametrize(
    "messages",
    [
        dialogue(ENGLISH, ENGLISH),
        dialogue(ENGLISH.upper(), ENGLISH.upper()),
        dialogue("Translate this into German: " + ENGLISH, LIBRARY["de"]),
        dialogue(LIBRARY["fr"], ENGLISH),
        dialogue("Say it in French.", LIBRARY["fr"]),
        dialogue("Bonjour!", "Salut !"),
        dialogue("Guten Morgen", "Guten Morgen!"),
        dialogue(CODE, CODE),
        dialogue("x = 3", "def f(x): return x"),
        dialogue("", "12345 67890 + 1 = ?"),
        dialogue(
            "https://de.wikipedia.org/wiki/Bibliothek_in_der_Stadt", "www.bibliothek-heidelberg.example/oeffnungszeiten"
        ),
        dialogue("Name three composers.", "Ludwig van Beethoven, Wolfgang Amadeus Mozart, Johann Sebastian Bach"),
        dialogue(ENGLISH, ENGLISH, *[LIBRARY["es"]] * 2, ENGLISH, ENGLISH),
    ],
)
def test_what_stays(messages: list[Message]) -> None:
    assert is_kept(messages)


def test_comments_in_code_are_not_looked_at() -> None:
    assert is_kept(dialogue(f"```\n# {LIBRARY['de']}\nx = 1\n```", f"```\n# {LIBRARY['de']}\nx = 2\n```"))


def test_a_recipe_may_only_name_languages_that_can_be_found() -> None:
    labels = {each["lang"] for each in detector().detect(ENGLISH, model="lite", k=-1, threshold=-1.0)}
    assert labels == LANGUAGES
    with pytest.raises(ValidationError, match="'english' is no code of a known language"):
        Language(type="language", keep=("de", "english"))


@given(any_messages)
def test_any_messages_are_kept_or_dropped_with_storable_text(messages: list[Message]) -> None:
    clean = step(Language(type="language"))
    try:
        assert clean(messages) is messages
    except Dropped as dropped:
        dropped.detail.encode()


def test_real_english_dialogues_stay(outside_data: Path) -> None:
    """At most one in two hundred of 742 dialogues of UltraChat goes."""
    with gzip.open(outside_data / "dialogues" / "ultrachat_200k_sample.jsonl.gz", "rt", encoding="utf-8") as lines:
        kept = [is_kept(json.loads(line)["messages"]) for line in lines]
    assert len(kept) == 742
    assert kept.count(False) <= 3
