"""What all parts of a spec have in common: frozen models, and decimals of one spelling.

A part refuses fields that it does not know. A field that was added later is left out of the canonical
form where it has its default, so that a spec that does not use it keeps its hash.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ledger.formats.documents import plain_decimal

Plain = AfterValidator(plain_decimal)
Fraction = Annotated[Decimal, Field(gt=0, le=1, max_digits=12, allow_inf_nan=False), Plain]
Part = Annotated[Decimal, Field(gt=0, lt=1, max_digits=12, allow_inf_nan=False), Plain]
Rate = Annotated[Decimal, Field(gt=0, le=1000, max_digits=12), Plain]


class SpecPart(BaseModel):
    """A frozen part of a spec; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


def is_none(value: object) -> bool:
    """Whether a field is left out of the canonical form for being ``null``."""
    return value is None
