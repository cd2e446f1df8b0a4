"""What a config is made of: sections that refuse what they do not know, and strict numbers."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def integral(value: object) -> object:
    """2e6 is how people write token counts; YAML reads it as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def fraction(value: object) -> object:
    """1/17 is how people write shares; YAML reads it as text."""
    try:
        return float(Fraction(value)) if isinstance(value, str) else number(value)
    except (ValueError, ZeroDivisionError):
        return value


def default_of(section: "Section", name: str) -> Any:
    return type(section).model_fields[name].default


LARGEST = 2**63 - 1  # what arrays and tables hold
Count = Annotated[int, BeforeValidator(integral), Field(gt=0, le=LARGEST)]
CountOrZero = Annotated[int, BeforeValidator(integral), Field(ge=0, le=LARGEST)]
Rate = Annotated[float, BeforeValidator(number), Field(gt=0, allow_inf_nan=False)]
RateOrZero = Annotated[float, BeforeValidator(number), Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(number), Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of a config: unknown keys, wrong types and non-finite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
