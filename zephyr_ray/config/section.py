"""The base of a recipe's sections: frozen, without unknown keys, each field either semantic or compute.

Fields marked as compute say how an experiment runs and are left out of fingerprints: changing the hardware never
changes the experiment.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def compute(default: Any, **constraints: Any) -> Any:
    """A field that says how the experiment runs, not what it is: not part of any fingerprint."""
    return Field(default, json_schema_extra={"compute": True}, **constraints)


class Section(BaseModel):
    """A frozen part of a recipe that refuses unknown keys; the string under each field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Function(Section):
    """A Python function of the user's own."""

    function: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`, importable on every node."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function, besides those that every function of its kind gets (docs/extending.md)."""


def semantic(section: Section) -> dict[str, Any]:
    """The fields of a section that say what the experiment is, as plain JSON values; compute fields are left out."""
    plain: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("compute"):
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            plain[name] = semantic(value)
        elif isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
            plain[name] = [semantic(item) for item in value]
        else:
            plain[name] = section.model_dump(mode="json")[name]
    return plain
