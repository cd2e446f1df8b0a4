"""The memory section of a config."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from core.memory_types import BLOCK_TYPES, GENERIC, NONE, TOKEN_TYPES, type_names
from core.placement import parse_placement
from core.section import (
    Count,
    CountOrZero,
    Rate,
    RateOrZero,
    Section,
    default_of,
    fraction,
    to_tuple,
)

SHARED_FIELDS = ("placement", "lr", "weight_decay")


def fields_of(memory_type: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fields beside `type` that a type needs, and all that it may have."""
    if memory_type == NONE:
        return (), ()
    if memory_type in TOKEN_TYPES:
        token = TOKEN_TYPES[memory_type]
        return token.fields, (*token.fields, *token.optional, *SHARED_FIELDS)
    # A generic block is one for all: it has no bank to size and nothing to mix with.
    own = ("block",) if memory_type == GENERIC else ("bank", "generic_mix")
    return (), ("widths", "fetched", "shape", *own, "weights", "moments", *SHARED_FIELDS)


class MemoryConfig(Section):
    """What the anchor is augmented with.

    Widths are given for the uniform placement; elsewhere they grow by layers / layers that hold
    memory, so that the fetched parameters stay the same.
    """

    type: str = "none"
    block: str = "ffn"  # what a generic block is made of
    # multiplier r per level of the tree, 0 = unused; a block at level l holds c0 * r_l parameters
    widths: Annotated[tuple[CountOrZero, ...], BeforeValidator(to_tuple)] = ()
    # instead of widths: parameters fetched or banked, and the proportions of the widths; a resolved
    # config holds the widths that follow
    fetched: Count | None = None
    bank: Count | None = None
    shape: Annotated[tuple[CountOrZero, ...], BeforeValidator(to_tuple)] = ()
    # uniform, early, middle, late (10/35 of the layers) or late-N and so on, every-N, or [0, 2]
    placement: Annotated[
        str | tuple[int, ...], BeforeValidator(to_tuple), AfterValidator(parse_placement)
    ] = "uniform"
    lr: Rate | None = None  # peak rate of the bank; none: the anchor's
    weight_decay: RateOrZero = 0.0  # of fetched rows only
    # share of the training rows that use one generic block of the fetched size instead of their
    # own; arXiv 2510.02375 has 1/17
    generic_mix: Annotated[float, BeforeValidator(fraction), Field(ge=0, lt=1)] = 0.0
    # how the bank keeps blocks and their moments between steps, which compute in fp32; bf16 is
    # rounded stochastically and has no fp32 master (core/memory/row_format.py)
    weights: Literal["fp32", "bf16"] = "fp32"
    moments: Literal["fp32", "bf16"] = "fp32"
    # of types that tokens address; `core/memory_types.py` says which type reads which
    keys: Count | None = None  # half keys of a product key: keys^2 slots
    heads: Count | None = None  # queries a token (pkm), hashes an n-gram (ngram)
    top_k: Count | None = None  # slots a head (pkm), experts a token (moe)
    value_lr: Rate | None = None  # of the values, under no schedule; none: 1e-3
    rows: Count | None = None  # of a head's table, at most: a prime near it is taken
    row_dim: Count | None = None
    experts: Count | None = None
    expert_width: Count | None = None  # none: the anchor's ffn

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        if value not in type_names():
            raise ValueError(f"unknown type; allowed: {', '.join(type_names())}")
        return value

    @field_validator("block")
    @classmethod
    def _known_block(cls, value: str) -> str:
        if value not in BLOCK_TYPES:
            raise ValueError(f"unknown block; allowed: {', '.join(BLOCK_TYPES)}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "MemoryConfig":
        needed, allowed = fields_of(self.type)
        fields = [name for name in type(self).model_fields if name != "type"]
        given = [name for name in fields if getattr(self, name) != default_of(self, name)]
        foreign = [name for name in given if name not in allowed]
        if foreign:
            choice = f"allowed: {', '.join(allowed)}" if allowed else "remove it or choose a type"
            raise ValueError(f"type {self.type} takes no {foreign[0]}; {choice}")
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(f"type {self.type} needs {', '.join(missing)}")
        if "widths" in allowed:
            self._one_size()
        self._enough_to_choose_from()
        return self

    def _enough_to_choose_from(self) -> None:
        for name in ("keys", "experts"):
            limit = getattr(self, name)
            if limit and self.top_k and self.top_k > limit:
                raise ValueError(
                    f"top_k {self.top_k} is above the {limit} {name} to choose from; lower it or "
                    f"give more {name}"
                )

    def _one_size(self) -> None:
        sizes = [name for name in ("widths", "fetched", "bank") if getattr(self, name)]
        if len(sizes) > 1:
            raise ValueError(f"{' and '.join(sizes)} are given; keep one of them")
        if not sizes or (self.widths and not any(self.widths)):
            raise ValueError(
                f"type {self.type} needs at least one width above 0, as widths: [16, 4]; "
                "or fetched or bank with a shape"
            )
        if (sizes != ["widths"]) != any(self.shape):
            raise ValueError("shape goes with fetched or bank, as fetched: 20e3, shape: [4, 1]")
