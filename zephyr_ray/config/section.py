"""The base of a recipe's sections: frozen, without unknown keys, each field either semantic or compute.

Fields marked as compute say how an experiment runs and are left out of fingerprints: changing the hardware never
changes the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python


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


class Values(dict[str, Any]):
    """The semantic fields of a section as JSON values, and the defaults of those that have one."""

    def __init__(self, values: Mapping[str, Any] | None = None, defaults: Mapping[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.defaults: dict[str, Any] = dict(defaults or {})

    def replaced(self, **values: Any) -> Values:
        """These values with others in their place or beside them."""
        return Values({**self, **values}, self.defaults)

    def without(self, *names: str) -> Values:
        """These values without some of them."""
        return Values({name: value for name, value in self.items() if name not in names}, self.defaults)


def semantic(section: Section) -> Values:
    """The fields of a section that say what the experiment is, as plain JSON values; compute fields are left out."""
    values, plain = Values(), section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("compute"):
            continue
        values[name] = _plain(getattr(section, name), plain[name])
        if not field.is_required():
            values.defaults[name] = _default(field)
    return values


def _plain(value: Any, dumped: Any) -> Any:
    if isinstance(value, Section):
        return semantic(value)
    if isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
        return [semantic(item) for item in value]
    return dumped


def _default(field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    return _plain(default, to_jsonable_python(default))
