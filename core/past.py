"""What a layer keeps of tokens read before, so that a text that grows is not read twice."""

import torch
from torch import Tensor


class Past:
    """Of one layer and one batch: sequences [..., t, size] by name, all over the same t tokens."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    @property
    def length(self) -> int:
        """Tokens read before."""
        return next((sequence.shape[-2] for sequence in self._kept.values()), 0)

    def join(self, name: str, new: Tensor) -> Tensor:
        """What was kept under `name` and, behind it, what is `new`; kept for the next reading."""
        kept = self._kept.get(name)
        self._kept[name] = new if kept is None else torch.cat((kept, new), dim=-2)
        return self._kept[name]


class NoPast(Past):
    """Texts are read whole, and nothing is kept."""

    def join(self, name: str, new: Tensor) -> Tensor:
        """`new` as it is."""
        return new


NO_PAST = NoPast()
