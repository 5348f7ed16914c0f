"""What a page must say of a model's fields: name, type and default, in words for people."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta, structs
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from ledger.entries.operations import values
from ledger.experiment import schema, spec


def _spelling(constraint: StringConstraints | Meta) -> tuple[str | None, int | None]:
    """Pattern and longest length."""
    if isinstance(constraint, Meta):
        return (constraint.extra or {}).get("pattern"), constraint.max_length
    return constraint.pattern, constraint.max_length  # type: ignore[return-value] # a text


_TEXTS: dict[tuple[str | None, int | None], str] = {}
for _name, _alias in (
    ("slug", values.Slug),
    ("organisation", values.Organisation),
    ("hash", values.Hash),
    ("key id", values.KeyId),
    ("signature", values.Signature),
    ("share", values.Share),
    ("leaf", values.LeafText),
    ("column name", schema.ColumnName),
    ("text", schema.Text),
    ("label", schema.Label),
    ("paragraphs", spec.Prose),
    ("line", spec.Line),
    ("block", spec.Block),
):
    _TEXTS[_spelling(get_args(_alias)[1])] = _name


def described(model: type[BaseModel] | type[values.Value]) -> list[tuple[str, str]]:
    """Each field's name as it is written, and its type; a value's fields by name."""
    if issubclass(model, values.Value):
        hints = get_type_hints(model, include_extras=True)
        return [(field.encode_name, _type(hints[field.name])) for field in structs.fields(model)]
    return [
        (info.alias or name, _type(info.annotation, tuple(info.metadata)))
        for name, info in model.model_fields.items()
    ]


def with_defaults(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Each field's name, type and default."""
    return [
        (name, kind, _default(info))
        for (name, kind), info in zip(described(model), model.model_fields.values(), strict=True)
    ]


def _type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _type(inner, (*more, *metadata))
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, UnionType):
        parts = [p for p in get_args(annotation) if p is not NoneType]
        texts = [_type(part, metadata) for part in parts]
        if NoneType in get_args(annotation):
            texts.append("`null`")
        return " or ".join(texts)
    if origin is tuple:
        return f"list of {_range(metadata, 'min_length', 'max_length')}{_type(get_args(annotation)[0])}"
    if annotation is str:
        return _text(metadata)
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return f"integer {_range(metadata, 'ge', 'le')}".strip()
    if annotation is Decimal:
        return f"decimal {_bounds(metadata)}".strip()
    if annotation is date:
        return "date"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel | values.Value):
        return f"`{annotation.__name__}`"
    raise LookupError(f"no words for {annotation!r}")


def _text(metadata: tuple[Any, ...]) -> str:
    for item in metadata:
        if isinstance(item, values.InDocuments):
            item = item.meta
        if isinstance(item, StringConstraints | Meta):
            return _TEXTS[_spelling(item)]
    return "text"


def _limits(metadata: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found.update(_limits(tuple(item.metadata)))
        if isinstance(item, values.InDocuments):
            item = item.meta
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            value = getattr(item, name, None)
            if value is not None:
                found[name] = value
    return found


def _range(metadata: tuple[Any, ...], low: str, high: str) -> str:
    limits = _limits(metadata)
    if low not in limits and high not in limits:
        return ""
    bottom = limits.get(low, 0)
    top = limits.get(high)
    if top in (None, values.MAX_INT):
        return f"{bottom:,} or more "
    return f"{bottom:,} to {top:,} "


def _bounds(metadata: tuple[Any, ...]) -> str:
    words = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}
    limits = _limits(metadata)
    return ", ".join(f"{text} {limits[n]:,}" for n, text in words.items() if n in limits)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "`null`"
    if isinstance(value, tuple):
        return f"`[{', '.join(str(item) for item in value)}]`"
    if isinstance(value, BaseModel):
        name = getattr(value, "name", None)
        return f"`{name}`" if name else "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "empty" if value == "" else f"`{value}`"
