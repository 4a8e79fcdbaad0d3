"""Fields of a recipe that hold one of several sections, told apart by `type`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from zephyr_ray.config.section import Section

TEXT, LIST, MAPPING = "text", "list", "mapping"
"""Tags of the forms of a value that may also be written as text or a list of texts (`data.Source`)."""


def form_of(value: Any) -> str:
    """The form in which such a value is written."""
    return TEXT if isinstance(value, str) else LIST if isinstance(value, list | tuple) else MAPPING


@dataclass(frozen=True)
class Place:
    """A field of a recipe, or a section in it."""

    path: tuple[str, ...]
    """Its keys, and its number in a list, as a recipe has them."""
    section: type[Section] | None
    """The section that stands there; None: a plain value, or it is open which section."""
    choices: dict[str, type[Section]]
    """The sections that may stand there, by `type`, where it is open which one."""


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The sections that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def choices_of(annotation: Any) -> dict[str, type[Section]]:
    """The sections among which a value of this type chooses, by `type`; none where there is no choice."""
    return {name: section for section in sections_in(annotation) if (name := type_of(section))}


def type_of(section: type[Section]) -> str | None:
    """The value of `type` that chooses this section; None where it has no such field."""
    field = section.model_fields.get("type")
    return get_args(field.annotation)[0] if field else None


def field_of(section: type[Section] | None, name: str) -> Any:
    """The type of a field; None where the section has no such field."""
    field = section.model_fields.get(name) if section else None
    return field.annotation if field else None


def section_of(annotation: Any, name: Any = None) -> type[Section] | None:
    """The section that a value of this type is.

    Args:
        annotation: The type.
        name: The value's own `type`, where it has one.
    """
    choices = choices_of(annotation)
    if choices:
        return choices.get(name) if isinstance(name, str) else None
    return next(sections_in(annotation), None)


def locate(root: type[Section], location: Sequence[str | int]) -> Place:
    """The place of a pydantic error; pydantic puts the `type` of a section between its keys.

    Args:
        root: The section that was validated.
        location: `loc` of the error.
    """
    path: list[str] = []
    section: type[Section] | None = root
    choices: dict[str, type[Section]] = {}
    for part in location:
        if part in choices:
            section, choices = choices[str(part)], {}
        elif not (part in (TEXT, LIST, MAPPING) and (choices or field_of(section, str(part)) is None)):
            path.append(str(part))
            if isinstance(part, str):
                annotation = field_of(section, part)
                choices, section = choices_of(annotation), section_of(annotation)
    return Place(tuple(path), section, choices)
