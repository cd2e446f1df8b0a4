"""A model reading texts that grow: no token is read twice, and memory is merged where it can be.

What serves one batch of prompts is made ready once: weights in the precision of the products, the
fetched memory attached or, where one block serves all and is a plain sum of weights, merged into
them. So a prompt alone is continued at the cost of the wider dense model.
"""

import copy
from collections.abc import Callable, Sequence
from operator import is_not
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from core.anchor import FFN, Anchor, Layer, Linear
from core.memory.base import FUSED, Attached, Projection
from core.past import Past

# The memory of each layer for texts [b, t], of which the pasts leave out what they keep.
Attach = Callable[[Tensor, Tensor, Sequence[Past]], Sequence[Attached]]


class Trunk(Protocol):
    """Tokens and segments [b, t] to last hidden states; see `core.anchor.Anchor.forward`."""

    def __call__(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        memory: Sequence[Attached],
        dtype: torch.dtype,
        pasts: Sequence[Past],
    ) -> Tensor: ...


class Reader:
    """Hidden states of one batch of texts as it grows."""

    def __init__(self, trunk: Trunk, layers: int, dtype: torch.dtype, attach: Attach) -> None:
        self.trunk, self.layers, self.dtype, self.attach = trunk, layers, dtype, attach
        self.seen: tuple[Tensor, ...] = ()
        self._forget()

    def read(self, tokens_bt: Tensor, segments_bt: Tensor) -> Tensor:
        """Of what is new behind the last reading: [b, new, d].

        Texts that do not go on where the last reading ended are read from their beginning.
        """
        if not self._goes_on(tokens_bt, segments_bt):
            self._forget()
        memory = self.attach(tokens_bt, segments_bt, self.pasts)
        self.seen = tokens_bt, segments_bt
        return self.trunk(tokens_bt, segments_bt, memory, self.dtype, self.pasts)

    def _goes_on(self, *texts: Tensor) -> bool:
        seen = self.pasts[0].length
        return 0 < seen < texts[0].shape[1] and all(
            torch.equal(text[:, :seen], before)
            for text, before in zip(texts, self.seen, strict=True)
        )

    def _forget(self) -> None:
        self.pasts = [Past() for _ in range(self.layers)]


def split_memory(memory: Sequence[Attached]) -> tuple[list[Attached], list[Attached]]:
    """What can be merged into each layer's matrices, and what is left to attach."""
    merged = [attached if attached.mergeable else Attached() for attached in memory]
    return merged, [Attached() if attached.mergeable else attached for attached in memory]


def merged_anchor(anchor: Anchor, memory: Sequence[Attached], dtype: torch.dtype) -> Anchor:
    """The anchor with each layer's memory in its matrices, which are kept in `dtype`.

    All that does not change is shared with `anchor`.
    """
    shared = {id(parameter): parameter for parameter in anchor.parameters()}
    merged = copy.deepcopy(anchor, shared)
    for layer, attached in zip(merged.layers, memory, strict=True):
        for name, linear in _matrices(cast(Layer, layer)).items():
            parts = linear.weight.chunk(len(FUSED[name]))
            weights = [attached.merge(n, w) for n, w in zip(FUSED[name], parts, strict=True)]
            if linear.weight.dtype != dtype or any(map(is_not, weights, parts)):
                linear.weight = nn.Parameter(torch.cat(weights).to(dtype), requires_grad=False)
    return merged


def _matrices(layer: Layer) -> dict[Projection, Linear]:
    """Of one layer; a layer whose FFN a memory replaces has no gate, up and down."""
    found: dict[Projection, Linear] = {"qkv": layer.attention.qkv, "out": layer.attention.out}
    if isinstance(layer.ffn, FFN):
        found |= {"gate_up": layer.ffn.gate_up, "down": layer.ffn.down}
    return found
