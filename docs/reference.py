"""Reads the recipe's sections and the functions for other programs -> two pages of the site, at build time."""

from __future__ import annotations

import ast
import json
import re
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from zephyr_ray.config.section import Section
from zephyr_ray.config.unions import choices_of, sections_in
from zephyr_ray.training.methods import recipe_type

REPO = Path(__file__).resolve().parents[1]

FUNCTIONS = {
    "Recipes": ("config.loader.load", "config.loader.to_yaml", "config.section.semantic"),
    "Pipelines": ("zephyr.stages", "zephyr.run_pipeline", "zephyr.write_report"),
    "Rows as they come, by their layout": (
        "data.formats.layouts.preferences",
        "data.formats.layouts.dialogue",
        "data.formats.layouts.prompt",
    ),
    "Datasets": ("data.io.sources.read_rows", "inference.sampling.sample_candidates"),
    "Pairs": ("data.binarize.binarize", "training.logps.load_scorer"),
    "Prompts as token ids": ("chat_template.load_tokenizer", "chat_template.encode"),
    "Judging": (
        "judging.prompt.questions_of",
        "judging.llm_judge.ask",
        "judging.aggregation.judged_row",
        "judging.function_judge.judge_by_program",
    ),
    "Lineage": (
        "pipeline.lineage.reading.located",
        "pipeline.lineage.reading.lineage_of",
        "pipeline.lineage.reading.stages_of",
        "data.row_lineage.trace.trace",
    ),
    "Evaluation": (
        "evaluation.implicit_reward.summarise",
        "evaluation.intervals.bootstrap",
    ),
}
"""Functions of zephyr_ray that a program of one's own may call."""

_HEADER = ("| field | type | default | kind | meaning |", "| --- | --- | --- | --- | --- |")
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_LENGTHS = {"min_length": "at least {} long", "max_length": "at most {} long", "pattern": "matches {}"}


def recipe_fields() -> str:
    """The page on every field of a recipe: a table for each section."""
    recipe = recipe_type()
    fields = recipe.model_fields.items()
    sections = [(name, field) for name, field in fields if any(places_in(name, field.annotation))]
    return "\n".join(
        [
            "# Recipe fields",
            "",
            "Made from the recipe's own docstrings. A **semantic** field says what the experiment is, and is part of",
            "fingerprints; a **compute** field says how it runs, and never changes the experiment.",
            "",
            "| section | unless it is given |",
            "| --- | --- |",
            *(f"| {_link(name, name)} | {_default(field)} |" for name, field in sections),
            "",
            *_HEADER,
            *(_row([""], recipe, name, field) for name, field in fields if (name, field) not in sections),
            *(line for paths, section in _sections() for line in _table(paths, section)),
            "",
        ]
    )


def functions() -> str:
    """The page on the functions of `FUNCTIONS`."""
    lines = ["# Functions", "", "What a program of one's own may call. [From Python](api.md) shows how."]
    for heading, names in FUNCTIONS.items():
        lines += ["", f"## {heading}"]
        for name in names:
            module, _, function = name.rpartition(".")
            lines += ["", f"### `zephyr_ray.{name}`", "", *_function(module, function)]
    return "\n".join([*lines, ""])


@cache
def _sections() -> list[tuple[list[str], type[Section]]]:
    """Every section in the order of the recipe, with the paths at which it stands (`sft.training`, `dpo.training`).

    The path of one that a field chooses by `type` ends with that: `judging.judge.function`.
    """
    places: dict[type[Section], list[str]] = {}

    def visit(section: type[Section], path: str) -> None:
        for name, field in section.model_fields.items():
            for place, inner in places_in(f"{path}.{name}" if path else name, field.annotation):
                places.setdefault(inner, []).append(place)
                visit(inner, place)

    visit(recipe_type(), "")
    return [(list(dict.fromkeys(paths)), section) for section, paths in places.items()]


def places_in(path: str, annotation: Any) -> Iterator[tuple[str, type[Section]]]:
    """The sections that a field may hold, each with its path."""
    if choices := choices_of(annotation):
        yield from ((f"{path}.{kind}", section) for kind, section in choices.items())
    else:
        yield from ((path, section) for section in sections_in(annotation))


def _table(paths: list[str], section: type[Section]) -> Iterator[str]:
    yield from ("", f"## {', '.join(f'`{path}`' for path in paths)} {{ #{paths[0]} }}", "")
    if section.__doc__:
        yield from (_prose(section.__doc__), "")
    yield from _HEADER
    for name, field in sorted(section.model_fields.items(), key=lambda each: each[0] != "type"):
        yield _row([f"{path}." for path in paths], section, name, field)


def _row(prefixes: list[str], section: type[Section], name: str, field: Any) -> str:
    """A field's row: what its name begins with, wherever its section stands."""
    extra = field.json_schema_extra
    kind = "compute" if isinstance(extra, dict) and extra.get("compute") else "semantic"
    nested = next(sections_in(field.annotation), None)
    text = _prose((field.description or "") if nested else _description(section, name))
    anchors = "".join(f'<span id="{prefix}{name}"></span>' for prefix in prefixes)
    cells = (f"{anchors}`{name}`", _type(field.annotation, field.metadata), _default(field), kind, text)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _description(section: type[Section], name: str) -> str:
    """The field's docstring, or that of the section which it is inherited from."""
    for each in section.__mro__:
        field = each.model_fields.get(name) if issubclass(each, Section) else None
        if field is not None and field.description:
            return field.description
    raise ValueError(f"{section.__name__}.{name} has no docstring")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    assert value is not PydanticUndefined
    if isinstance(value, Section):
        return "its fields' defaults"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(annotation: Any, metadata: list[Any]) -> str:
    """A type in the words of YAML, with its bounds."""
    return ", ".join([_bare_type(annotation), *_bounds(metadata)])


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for each in metadata:
        for name, sign in _BOUNDS.items():
            if hasattr(each, name):
                yield f"{sign} {getattr(each, name):g}"
        for name, words in _LENGTHS.items():
            if getattr(each, name, None) is not None:
                yield words.format(f"`{getattr(each, name)}`")


def _bare_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], [bound for each in arguments[1:] for bound in getattr(each, "metadata", [each])])
    if origin in (Union, types.UnionType):
        return " or ".join(_bare_type(each) for each in arguments)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(each)}`" if not isinstance(each, str) else f"`{each}`" for each in arguments)
    if origin is tuple:
        several = arguments[-1] is Ellipsis
        return f"list of {_bare_type(arguments[0])}" if several else f"[{', '.join(map(_bare_type, arguments))}]"
    if origin is dict:
        return "mapping" if arguments[1] is Any else f"mapping to {_bare_type(arguments[1])}"
    if annotation is type(None):
        return "`null`"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        (path,) = (paths[0] for paths, section in _sections() if section is annotation)
        return _link(path, path)
    return {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", Any: "anything"}[annotation]


def _link(text: str, anchor: str) -> str:
    return f"[`{text}`](#{anchor})"


def _prose(text: str) -> str:
    """A docstring's words as Markdown: on one line, `<` as it is, and links to the guides that it names."""
    line = " ".join(text.split())
    parts = re.split(r"(`[^`]*`)", line)  # every second one is code
    escaped = "".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))
    return re.sub(r"\bdocs/(\w+\.md(?:#[\w-]+)?)", r"[\1](\1)", escaped)


def _function(module: str, name: str) -> Iterator[str]:
    """Signature and docstring of a function, which is not imported for it."""
    tree = ast.parse((REPO / "zephyr_ray" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    (found,) = (node for node in tree.body if isinstance(node, kinds) and node.name == name)
    keyword = "async def" if isinstance(found, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(found.returns)}" if found.returns else ""
    yield from ("```python", f"{keyword} {name}({_arguments(found.args)}){returns}", "```", "")
    yield from _docstring(ast.get_docstring(found) or "")


def _arguments(arguments: ast.arguments) -> str:
    written = ast.unparse(arguments)
    if len(written) < 80:
        return written
    return re.sub(r", (?=\*|\w+:)", ",\n    ", f"\n    {written},\n")


def _docstring(text: str) -> Iterator[str]:
    """Paragraphs as they are; Args, Returns and Raises as lists."""
    for paragraph in re.split(r"\n\n+", text):
        title, _, rest = paragraph.partition("\n")
        if title in ("Args:", "Returns:", "Raises:"):
            yield from (f"**{title[:-1]}**", "")
            for entry in re.split(r"\n(?=    \S)", rest) if title != "Returns:" else (rest,):
                word, colon, meaning = entry.strip().partition(": ")
                known = colon and re.fullmatch(r"\w+", word)
                yield f"- `{word}`: {_prose(meaning)}" if known else f"- {_prose(entry)}"
            yield ""
        else:
            yield from (_prose(paragraph), "")
