"""Reads recipe YAML files and `--set` overrides -> one `Recipe`, or one line that names file, field and fix."""

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
from zephyr_ray.errors import UserError


def load(files: Sequence[str], overrides: Sequence[str] = ()) -> Recipe:
    """Merges recipe files left to right, then the overrides.

    Args:
        files: Paths of YAML files, or names of recipes that ship (`zephyr-7b-beta/paper`); a mapping of a later one is
            merged into an earlier one's.
        overrides: `section.field=value`, the value read as YAML.

    Raises:
        UserError: A file that cannot be read, a wrong key or a wrong value, named with its file and the allowed ones.
    """
    merged: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}
    for name in files:
        _merge(merged, _read_yaml(name), origin, name)
    for text in overrides:
        _merge(merged, _parse_override(text), origin, f"--set {text}")
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise UserError(_explain(error, origin, ", ".join(files) or "the default recipe")) from None


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


def _merge(into: dict[str, Any], new: dict[str, Any], origin: dict, name: str, at: tuple[str, ...] = ()) -> None:
    for key, value in new.items():
        path = (*at, str(key))
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, origin, name, path)
        elif isinstance(value, dict):
            into[key] = {}
            origin[path] = name
            _merge(into[key], value, origin, name, path)
        else:
            into[key] = value
            origin[path] = name


def _explain(error: ValidationError, origin: dict[tuple[str, ...], str], default_source: str) -> str:
    lines = []
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        source = next((origin[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origin), default_source)
        field = ".".join(path)
        if problem["type"] == "extra_forbidden":
            allowed = list(_model_at(path[:-1]).model_fields)
            close = difflib.get_close_matches(path[-1], allowed, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            lines.append(f"{source}: unknown key {field}; {hint}allowed here: {', '.join(allowed)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = f" (given: {problem['input']!r})" if not isinstance(problem["input"], dict | Section) else ""
            lines.append(f"{source}: {field + ': ' if field else ''}{message}{given}")
    return "; ".join(lines)


def _model_at(path: tuple[str, ...]) -> type[Section]:
    """The section class at a path of keys."""
    model: type[Section] = Recipe
    for key in path:
        if key.isdigit():  # a place in a list of sections
            continue
        annotation = model.model_fields[key].annotation
        candidates = getattr(annotation, "__args__", (annotation,))
        model = next(c for c in candidates if isinstance(c, type) and issubclass(c, Section))
    return model
