"""Memory types by name: one line a type. Torch-free, so that a config is checked without torch.

A type lives in one file under `core/memory`; its line here says which class that is, what one unit
of width costs, and which fields of the memory section it reads beside those that all types share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import isqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.config import AnchorConfig
    from core.memory_config import MemoryConfig

NONE, GENERIC = "none", "generic"  # no memory; one block that every document shares


@dataclass(frozen=True)
class BlockType:
    """A type whose blocks the cluster tree addresses.

    A block of width r holds `unit(anchor)` x r parameters for each layer that holds memory; they
    are multiplied with every token once.
    """

    implementation: str  # "module:class", imported when a run needs it
    unit: Callable[["AnchorConfig"], int]


def _heads(anchor: "AnchorConfig") -> int:
    return anchor.heads * anchor.head_dim


# Source of the units: arXiv 2510.02375, sec. 2.2 and app. I.
BLOCK_TYPES: dict[str, BlockType] = {
    "ffn": BlockType("core.memory.ffn:FFNMemory", lambda a: 3 * a.d_model),
    "kv": BlockType("core.memory.kv:KVMemory", lambda a: 2 * _heads(a)),
    "lora-qk": BlockType("core.memory.lora:LoRAQK", lambda a: 2 * (a.d_model + _heads(a))),
    "lora-vo": BlockType("core.memory.lora:LoRAVO", lambda a: 2 * (a.d_model + _heads(a))),
    "lora-ffn": BlockType("core.memory.lora:LoRAFFN", lambda a: 3 * (a.d_model + a.ffn)),
}


@dataclass(frozen=True)
class TokenCosts:
    """Parameters of a memory that each token addresses, over all its layers."""

    dense: int  # every token multiplies them
    stored: int  # in rows or experts, of which a token takes a few
    read: int  # of those, by one token
    flops: int  # of one token's products


@dataclass(frozen=True)
class TokenType:
    """A type that each token addresses by its content.

    `costs(memory, anchor, layers)` counts for that many layers; `fields` of the memory section are
    needed, `optional` ones may be given, and no others.
    """

    implementation: str
    fields: tuple[str, ...]
    costs: Callable[["MemoryConfig", "AnchorConfig", int], TokenCosts]
    replaces_ffn: bool
    optional: tuple[str, ...] = ()


def _moe(memory: "MemoryConfig", anchor: "AnchorConfig", layers: int) -> TokenCosts:
    """A router over experts of the FFN's shape."""
    assert memory.experts and memory.top_k
    expert = 3 * anchor.d_model * (memory.expert_width or anchor.ffn)
    router, read = memory.experts * anchor.d_model, memory.top_k * expert
    return TokenCosts(
        layers * router,
        layers * memory.experts * expert,
        layers * read,
        2 * layers * (router + read),
    )


def _pkm(memory: "MemoryConfig", anchor: "AnchorConfig", layers: int) -> TokenCosts:
    """Queries, two sets of half keys a head and two gate matrices a layer; one pool of values."""
    assert memory.keys and memory.heads and memory.top_k
    d = anchor.d_model
    queries, keys = d * memory.heads * (d // 2), memory.heads * memory.keys * (d // 2)
    dense = layers * (queries + keys + 2 * d * d)
    read = layers * memory.heads * memory.top_k * d
    return TokenCosts(dense, memory.keys**2 * d, read, 2 * (dense + read))


def _ngram(memory: "MemoryConfig", anchor: "AnchorConfig", layers: int) -> TokenCosts:
    """Tables of rows; key and value projections, a convolution and three gains a layer."""
    assert memory.rows and memory.heads and memory.row_dim
    d, read = anchor.d_model, len(NGRAMS) * memory.heads * memory.row_dim
    products = 2 * read * d + CONVOLUTION * d
    stored = sum(table_rows(memory.rows, memory.heads)) * memory.row_dim
    return TokenCosts(
        layers * (products + 3 * d), layers * stored, layers * read, 2 * layers * products
    )


NGRAMS = (2, 3)
CONVOLUTION = 4  # taps; both as in arXiv 2601.07372


@cache
def table_rows(rows: int, heads: int) -> tuple[int, ...]:
    """Rows of each head's table, bigrams first: the largest primes up to `rows`, no two alike.

    Heads share their hash before the modulus, so that only unlike primes part their collisions.
    """
    primes = (n for n in range(rows, 1, -1) if all(n % i for i in range(2, isqrt(n) + 1)))
    return tuple(islice(primes, len(NGRAMS) * heads))


# Sources: product keys arXiv 2412.09764, n-gram tables arXiv 2601.07372, experts arXiv 2101.03961.
TOKEN_TYPES: dict[str, TokenType] = {
    "pkm": TokenType(
        "core.memory.pkm:PKMemory", ("keys", "heads", "top_k"), _pkm, True, ("value_lr",)
    ),
    "ngram": TokenType(
        "core.memory.ngram:NGramMemory", ("rows", "heads", "row_dim"), _ngram, False
    ),
    "moe": TokenType(
        "core.memory.moe:Experts", ("experts", "top_k"), _moe, True, ("expert_width",)
    ),
}


def type_names() -> tuple[str, ...]:
    """What `memory.type` may say."""
    return (NONE, GENERIC, *BLOCK_TYPES, *TOKEN_TYPES)


def fit_widths(
    size: int, costs: tuple[int, ...], shape: tuple[int, ...], quantum: int
) -> tuple[int, ...]:
    """Multiples of `quantum` in the proportions of `shape`, for `size` parameters in all.

    `costs` holds the parameters of one unit of width per level. Raises ValueError where a level of
    the shape would come out empty.
    """
    scale = size / sum(cost * part for cost, part in zip(costs, shape, strict=True))
    widths = tuple(quantum * round(scale * part / quantum) for part in shape)
    if any(part and not width for part, width in zip(shape, widths, strict=True)):
        least = sum(cost * quantum for cost, part in zip(costs, shape, strict=True) if part)
        raise ValueError(
            f"memory: {size} parameters leave a level of shape {list(shape)} empty; "
            f"width {quantum} at each of its levels takes {least}, so give more or a flatter shape"
        )
    return widths
