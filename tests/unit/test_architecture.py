"""Which folder imports which, that every field of a recipe is read, and that every module says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

from zephyr_ray.config.section import Section
from zephyr_ray.training.methods import methods, recipe_type

REPO = Path(__file__).parents[2]
CODE = ("zephyr_ray", "jobs", "serve", "benchmarks", "docs", "tests")

ROOT_MODULES = {
    "base": "errors schemas storage",
    "chat_template": "answers chat_template",
    "zephyr": "zephyr",
    "cli": "__main__",
    "api": "__init__",
}
"""The modules at the package's root, by what they are for; a folder of the package is a group of its own."""

IMPORTS = {
    "base": "",
    "config": "base",
    "cluster": "base config",
    "chat_template": "base config",
    "pipeline": "base chat_template cluster config",
    "training": "base chat_template cluster config pipeline",
    "serving": "base chat_template cluster config pipeline training",
    "inference": "base chat_template cluster config pipeline serving",
    "judging": "base chat_template config inference pipeline serving training",
    "generation": "base chat_template config inference pipeline serving",
    "data": "base chat_template cluster config generation inference judging pipeline serving training",
    "evaluation": "base cluster config data inference pipeline serving",
    "reporting": "base config data evaluation pipeline",
    "embedded": "chat_template config pipeline training",
    "wiring": "base config data evaluation judging pipeline training",
    "zephyr": "base chat_template cluster config data pipeline reporting training wiring",
    "api": "base config data pipeline training zephyr",
    "cli": "base cluster config data evaluation pipeline serving training zephyr",
    "serve": "cli",
    "jobs": "cli",
    "docs": "config training",
    "benchmarks": (
        "base chat_template cluster config data embedded evaluation inference judging pipeline training zephyr"
    ),
}
"""What each group imports, at the top of a module or within a function: only groups above it. Tests import what they
like."""

GROUP_OF = {module: group for group, modules in ROOT_MODULES.items() for module in modules.split()}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPO / folder).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """Every name that a module imports anywhere in it, as its parts."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from ((*str(node.module).split("."), alias.name) for alias in node.names)


def group(name: tuple[str, ...]) -> str:
    """The group of a module, or of a name in it, by its parts."""
    if name[0] != "zephyr_ray":
        return name[0]
    module = name[1] if len(name) > 1 else "__init__"
    if (REPO / "zephyr_ray" / module).is_dir():
        return module
    if (REPO / "zephyr_ray" / f"{module}.py").is_file():
        assert module in GROUP_OF, f"zephyr_ray/{module}.py has no place in ROOT_MODULES"
        return GROUP_OF[module]
    return "base"  # its version


def importers_of(folder: str) -> dict[str, set[str]]:
    """For each group of a folder the groups it imports, each with the first module that does."""
    edges: dict[str, set[str]] = {}
    for path in modules(folder):
        own = group(path.relative_to(REPO).with_suffix("").parts)
        others = {group(name) for name in imported(path) if name[0] in CODE}
        edges.setdefault(own, set()).update(others - {own})
    return edges


def test_imports_go_the_ways_of_the_table() -> None:
    """A new way goes into the table where it has to be; a way that is no longer gone comes out of it."""
    found = {own: others for top in CODE[:-1] for own, others in importers_of(top).items()}
    assert found == {own: set(others.split()) for own, others in IMPORTS.items()}


def test_imports_go_one_way() -> None:
    """A group imports only groups that stand above it in the table, so there is no cycle."""
    order = list(IMPORTS)
    against = [
        f"{own} imports {other}"
        for own, others in IMPORTS.items()
        for other in others.split()
        if order.index(other) >= order.index(own)
    ]
    assert against == []


def test_an_import_within_a_function_counts() -> None:
    """`preload` and the commands import heavy modules that way."""
    names = {name[:2] for name in imported(REPO / "zephyr_ray" / "cli" / "pipeline.py")}
    assert {("zephyr_ray", "zephyr"), ("zephyr_ray", "pipeline")} <= names


def sections(section: type[Section] | None = None) -> dict[str, type[Section]]:
    """A section with all sections in it, by name. None: the recipe, with the sections of all methods."""
    section = section or recipe_type()
    found = {section.__name__: section}
    waiting = [field.annotation for field in section.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found |= sections(annotation)
        waiting += get_args(annotation)
    return found


def attributes(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_field_of_a_recipe_is_read() -> None:
    """By a module that is not the recipe's own, or by a property that such a module reads."""
    own = set(modules("zephyr_ray/config"))
    others = [path for path in modules("zephyr_ray", "jobs", "serve") if path not in own]
    read = set(methods()).union(*(attributes(parsed(path)) for path in others))
    functions = [node for path in own for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]
    properties = [node for node in functions if [ast.unparse(each) for each in node.decorator_list] == ["property"]]
    read |= set().union(*(attributes(each) for each in properties if each.name in read))
    fields = {(name, field) for name, section in sections().items() for field in section.model_fields}
    assert len(fields) > 150
    assert sorted(f"{section}.{field}" for section, field in fields if field not in read) == []


def test_every_module_says_what_it_is_for() -> None:
    bare = [path for path in modules(*CODE) if parsed(path).body and not ast.get_docstring(parsed(path))]
    assert [str(path.relative_to(REPO)) for path in bare] == []
