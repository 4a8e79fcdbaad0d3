"""Recipe YAML files and `--set` overrides, merged into one `Recipe`. An error is one line with file, field and fix."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from zephyr_ray.config import shipped
from zephyr_ray.config.recipe import Recipe
from zephyr_ray.config.section import Section
from zephyr_ray.config.unions import Place, choices_of, field_of, locate, section_of, type_of
from zephyr_ray.errors import UserError

Origin = dict[tuple[str, ...], str]
"""The file or override that a value comes from, by its path."""

_NO_SECTION = ("union_tag_not_found", "union_tag_invalid", "model_attributes_type")
"""What pydantic calls a value that is none of a field's sections."""


def load(files: Sequence[str], overrides: Sequence[str] = (), kind: type[Recipe] = Recipe) -> Recipe:
    """Merges recipe files left to right, then the overrides.

    Args:
        files: Paths of YAML files, or names of recipes that ship (`zephyr-7b-beta/paper`); a mapping of a later one is
            merged into an earlier one's. A section of another `type` replaces the earlier one.
        overrides: `section.field=value`, the value read as YAML.
        kind: A recipe with further sections (`training.methods.recipe_type`).

    Raises:
        UserError: A file that cannot be read, a wrong key or a wrong value, named with its file and the allowed ones.
    """
    parts = [(name, _read_yaml(name)) for name in files]
    parts += [(f"--set {text}", _parse_override(text)) for text in overrides]
    return _merged(parts, kind, ", ".join(files) or "the default recipe")


def parse(text: str, name: str, kind: type[Recipe] = Recipe) -> Recipe:
    """The recipe of a YAML text, such as a run keeps.

    Args:
        text: The YAML.
        name: Where it comes from, for errors.
        kind: As in `load`.

    Raises:
        UserError: A wrong key or a wrong value.
    """
    return _merged([(name, _mapping(text, name))], kind, name)


def _merged(parts: Sequence[tuple[str, dict[str, Any]]], kind: type[Recipe], default_source: str) -> Recipe:
    """The recipe of mappings that are merged left to right, each with where it comes from."""
    merged: dict[str, Any] = {}
    origin: Origin = {}
    whole = Place((), kind, {})
    for name, part in parts:
        _merge(merged, part, origin, name, whole)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, kind, origin, default_source)) from None


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _read_yaml(name: str) -> dict[str, Any]:
    try:
        text = _file(name).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"recipe {name}: {error.strerror or error}; give the path of a YAML file, or the name of a recipe that "
            f"ships: {', '.join(shipped.names())}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"recipe {name} is not UTF-8 text; give the path of a YAML file") from None
    return _mapping(text, name)


def _mapping(text: str, name: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"recipe {name} is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"recipe {name}: the top of a recipe is a mapping of sections, not a {type(content).__name__}")
    return content


def _file(name: str) -> Path:
    """The file of that path, or the recipe of that name which ships."""
    path = Path(name)
    return path if path.exists() and not path.is_dir() else shipped.path_of(name) or path


def _parse_override(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise UserError(f"--set {text}: write section.field=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        parsed = value
    if isinstance(parsed, str):
        parsed = _number(parsed)
    for key in reversed(path.strip().split(".")):
        parsed = {key: parsed}
    return parsed


def _number(text: str) -> Any:
    """YAML 1.1 reads 5e-7 as text; a value that Python reads as a number is one."""
    try:
        return float(text)
    except ValueError:
        return text


def _merge(into: dict[str, Any], new: dict[str, Any], origin: Origin, name: str, at: Place) -> None:
    """Merges the mapping of a file or override into what there is.

    A mapping goes into a mapping field by field, unless it is a section of another `type`: that replaces it.
    """
    for key, value in new.items():
        path, annotation = (*at.path, str(key)), field_of(at.section, str(key))
        if not isinstance(value, dict):
            into[key] = value
            origin[path] = name
            continue
        there = into.get(key)
        if not isinstance(there, dict) or _is_other_section(there, value, annotation):
            there = into[key] = {}
            origin[path] = name
        kind = value.get("type", there.get("type"))
        _merge(there, value, origin, name, Place(path, section_of(annotation, kind), {}))


def _is_other_section(there: dict[str, Any], new: dict[str, Any], annotation: Any) -> bool:
    """Whether a mapping chooses another section, where a field has the choice."""
    return bool(choices_of(annotation)) and "type" in new and new["type"] != there.get("type")


def _explain(error: ValidationError, recipe: type[Section], origin: Origin, default_source: str) -> str:
    """What is wrong, in one line: keys that are not known first, as others may be missing because of them."""
    lines: list[str] = []
    last = None
    for problem in sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden"):
        place = locate(recipe, problem["loc"])
        path = place.path
        source = next((origin[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origin), default_source)
        if problem["type"] == "extra_forbidden":
            message = _unknown_key(recipe, problem["loc"])
        elif problem["type"] in _NO_SECTION:
            message = _unknown_type(".".join(path), problem["input"], list(place.choices))
        else:
            message = ".".join(path) + ": " if path else ""
            message += _words(problem["msg"]) + _given(problem["input"])
        lines.append(message if source == last else f"{source}: {message}")
        last = source
    return "; ".join(lines)


def _unknown_key(recipe: type[Section], location: tuple[str | int, ...]) -> str:
    """That a section has no such key, by the location of pydantic's error."""
    path, key = locate(recipe, location).path, str(location[-1])
    section = locate(recipe, location[:-1]).section
    assert section is not None
    allowed, kind = list(section.model_fields), type_of(section)
    said = f"unknown key {'.'.join(path)}; {_meant(key, allowed)}"
    if kind is None:
        return f"{said}allowed here: {', '.join(allowed)}"
    others = [name for name, each in locate(recipe, location[:-2]).choices.items() if key in each.model_fields]
    said += f"type {' and '.join(others)} has it; " if others else ""
    return f"{said}allowed with type {kind}: {', '.join(allowed)}"


def _unknown_type(field: str, given: Any, known: list[str]) -> str:
    """That a value does not say which of several sections it is."""
    if not known:
        return f"{field}: write text or a mapping{_given(given)}"
    types = f"{', '.join(known[:-1])} or {known[-1]}"
    if not isinstance(given, dict):
        return f"{field}: write a mapping whose type is {types}{_given(given)}"
    if "type" not in given:
        return f"{field} has no type; set {field}.type to {types}"
    return f"{field}.type: there is no type {given['type']}; {_meant(str(given['type']), known)}write {types}"


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def _given(value: Any) -> str:
    return "" if isinstance(value, dict | Section) else f" (given: {value!r})"


def _words(message: str) -> str:
    """A message of pydantic's in the words of YAML."""
    return message.removeprefix("Value error, ").replace("a valid tuple", "a list")
