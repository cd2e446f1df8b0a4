"""Memory types by name: one line a type. Torch-free, so that a config is checked without torch.

A type lives in one file under `core/memory`; its line here says which class that is, what one unit
of width costs, and which fields of the memory section it reads beside those that all types share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.config import AnchorConfig

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


def type_names() -> tuple[str, ...]:
    """What `memory.type` may say."""
    return (NONE, GENERIC, *BLOCK_TYPES)


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
