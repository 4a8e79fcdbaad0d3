"""What the learning and the restoring of capitals share: words, code, starts of sentences, wrongly cased turns."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LETTERS = r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*"  # accents may be characters of their own
WORD = re.compile(rf"(?:[^\W\d_]\.){{2,}}|{_LETTERS}(?:['’]{_LETTERS})*")
"""A word: letters and digits, with apostrophes inside (it's), or letters with dots (U.S.)."""

_CODE = re.compile(
    r"""
    ```.*?(?:```|\Z) | ~~~.*?(?:~~~|\Z) | `[^`\n]+`             # fenced, inline
    | (?m:^(?:\ {4,}|\t)(?!\s*(?:[-*•+–]|\w{1,3}[.)])\s).*$)    # indented, and no item of a nested list
    | (?m:^[^\n]*(?:[;{}]|\)\s*:)[ \t]*$)                       # a line that ends as code does
    | (?m:^\s*(?:import|from|def|class|return|elif|else|var|let|const|public|private|\#include|sudo|print|echo)\b
        (?:[^\n.]*[(){}=<>:]|\s\w+$)[^\n]*$)                    # a line that begins as code does
    | (?m:^[^\n]*\s(?:==?|\+=|=>|->|&&|\|\|)\s[^\n]*$)          # an assignment, a comparison
    | https?://\S+ | \bwww\.\S+ | \S+@\S+\.\w+                  # URLs, e-mail addresses
    | </?\w[^>\n]*> | \\\w+ | [$@\#]\w*[a-z]\w*                 # tags, TeX, variables, handles
    | \S*\w_\w\S* | \w+(?:\.\w+)*\([^()\n]*\) | \w+(?:::|->)\w+ # identifiers, calls
    | (?:\.{0,2}/|[a-z]:\\)[\w.-]+(?:[/\\][\w.-]+)* | [\w.-]+(?:/[\w.-]+){2,}
    | \b(?!(?:[^\W\d_]\.){2,})\w[\w-]*(?:\.\w[\w-]*)+\b         # names of files, hosts, modules
    """,
    re.VERBOSE | re.DOTALL,
)
_CODE_SIGNS = re.compile(r"[`~\\@_/=(){};<>$#\t]|    |\w\.\w|^(?:import|return|sudo|echo) |\|\|", re.MULTILINE)

_ABBREVIATIONS = (
    "e.g i.e eg ie vs cf etc al viz approx ca est dr mr mrs ms prof st rev hon gen col sgt lt capt gov sen rep jr sr "
    "inc ltd co corp dept univ no nos vol vols fig figs ed eds pp pg ch sec eq ext tel ft lb lbs oz tsp tbsp tbs min "
    "max hr hrs mt ave blvd rd apt a.m p.m u.s u.k ph.d resp incl excl misc dist ref refs art op cit b.c a.d feat"
)
_NO_ABBREVIATION = "".join(
    rf"(?<!\b(?i:{abbreviation.replace('.', '[.]')})[.])" for abbreviation in _ABBREVIATIONS.split()
)
_SINGLE_START = re.compile(
    rf"""
    [.?!] (?: (?<=[^\W\d_A-Z][^\W\d_][.]){_NO_ABBREVIATION}  # a word of two letters or more, no abbreviation
            | (?<=\d\d\d[.]) | (?<=[)\]%][.]) | (?<=[a-z][!?]) )
    \ {{1,2}}([a-z])(?=[a-z'’-]*(?:[,;:.!?]?(?:\s|$)))
    """,
    re.VERBOSE,
)
_LOWER_WORD = re.compile(r"(?:^|[\s(])[a-z][a-z'’-]*[!?]$")
_PRONOUN = re.compile(
    r"(?<=[\s(\"“])i(?=['’](?:m|ve|ll|d)\b|[ ](?:am|was|have|had|do|did|don't|didn't|can|can't|cannot|could|"
    r"couldn't|will|won't|would|wouldn't|should|shall|may|might|must|think|thought|believe|know|want|wanted|need|needed|"
    r"like|love|hope|feel|felt|understand|apologize|apologise|recommend|suggest|agree|guess|mean|wish|just|really|also|"
    r"never|always)\b)"
)
_LOWER_ASKED = re.compile(
    r"uncapitali[sz]ed|(?:no|without|avoid|not use|n't use)(?: \w+){0,2} (?:capital|upper)|\bto lower[- ]?case|"
    r"\bcummings\b|small letters",
    re.IGNORECASE,
)
_LOWER_CASE = re.compile(r"lower[- ]?case", re.IGNORECASE)
_UPPER_CASE = re.compile(r"upper[- ]?case|\bcapital", re.IGNORECASE)
LOWER_START = re.compile(
    rf"[^\W\d_][^\W\d_][.?!](?<![.][.]){_NO_ABBREVIATION}[\"'”’)]*\s+(?:\d+[.)]\s+|[-*•]\s+)?[\"'“‘(*]*[a-z]"
    rf"|{_PRONOUN.pattern}|[\s(]i [a-z]{{3,}}ed\b"
)
"""A sentence after another one, or "I", in lower case."""
_LABELLED_LOWER = re.compile(r"^[A-Z][\w .'’-]{0,24}: ?[a-z]", re.MULTILINE)
_CHAT = 2
"""Labelled lines in lower case from which on a text is a chat, whose people write as they like."""
STARTS = re.compile(
    rf"[.?!](?<![.][.]){_NO_ABBREVIATION}[\"'”’)\]*]*\s+[\"'“‘(*\[_]*$|\n\s*(?:[-*•+–—#>]+\s*)*[\"'“‘(*\[_]*$"
)
"""Found in what lies before a word (with the end of the word before that) where a sentence or a line begins with it."""


def code_spans(text: str) -> list[tuple[int, int]]:
    """Where there is code, markup, an address or an identifier, in order."""
    if not _CODE_SIGNS.search(text):
        return []
    return [match.span() for match in _CODE.finditer(text)]


def is_lower(text: str) -> bool:
    """Whether there is no capital after the first character, as `str.capitalize` leaves it."""
    text = text.lstrip()
    return text[1:].islower() and not text[0].islower()


def single_starts(text: str) -> Iterator[int]:
    """Where a sentence starts in lower case (its first letter), or "I" is so written, outside code.

    No sentence starts after a name that ends in "!" or "?" (Yahoo! mail, BRAVO! feature), an abbreviation, an ellipsis
    or a decimal, and none in a text that begins in lower case, or in a chat whose people begin in lower case.
    """
    if text[:1].islower():
        return
    found = [match.start(1) for match in _SINGLE_START.finditer(text) if not _ends_no_sentence(text, match.start())]
    if " i" in text or "\ni" in text or '"i' in text or "(i" in text or "“i" in text:
        found += [match.start() for match in _PRONOUN.finditer(text)]
    if found and not _is_chat(text):
        spans = code_spans(text)
        yield from (place for place in found if not any(start <= place < end for start, end in spans))


def asks_for_lower(text: str) -> bool:
    """Whether a user's message asks for text without capitals."""
    if _LOWER_ASKED.search(text):
        return True
    return _LOWER_CASE.search(text) is not None and _UPPER_CASE.search(text) is None


def _is_chat(text: str) -> bool:
    return ": " in text and len(_LABELLED_LOWER.findall(text)) >= _CHAT


def _ends_no_sentence(text: str, place: int) -> bool:
    """Whether the mark at this place ends a name, a unit (a 9-in. pan) or a word that begins a bracket (Jpn. for)."""
    word = text[max(0, place - 30) : place].rsplit(maxsplit=1)[-1]
    if text[place] == "." and (word[:1] == "(" or (word[:1].isdigit() and word[-1:].isalpha())):
        return True
    return _ends_in_name(text, place)


def _ends_in_name(text: str, place: int) -> bool:
    """Whether a word with a capital ends in the "!" or "?" at this place, as Yahoo! and Pop! do."""
    return text[place] != "." and _LOWER_WORD.search(text[max(0, place - 30) : place + 1]) is None
