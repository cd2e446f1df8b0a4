"""Anchor and bank together: what one run trains, evaluates and saves."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.anchor import Anchor
from core.config import RunConfig
from core.dataset import PADDING
from core.loss import summed_cross_entropy
from core.memory import create_bank
from core.memory.bank import Fetch
from core.memory.base import Attached


class Model:
    """The anchor, its bank (None without memory) and the precision of their products."""

    def __init__(self, config: RunConfig, device: str, precision: str) -> None:
        self.config, self.device = config, device
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.anchor = Anchor(config.anchor, config.data.vocab_size, config.seed).to(device)
        bank = create_bank(config)
        self.bank = bank.to(device) if bank else None

    def route(self, path_bl: Tensor) -> Tensor:
        """The bank's path of each document: its tree path, or block 0 for the generic control."""
        if self.config.memory.type == "generic":
            return torch.zeros(len(path_bl), 1, dtype=torch.long, device=path_bl.device)
        return path_bl

    def fetch(self, path_bl: Tensor) -> list[Fetch]:
        """The distinct blocks of a batch as leaves; empty without memory."""
        return self.bank.fetch(self.route(path_bl)) if self.bank else []

    def hidden(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        fetches: Sequence[Fetch],
        part: slice = slice(None),
    ) -> Tensor:
        """Last hidden states [b, t, d] of the documents `part` of the fetched batch."""
        memory: Sequence[Attached] = ()
        if self.bank and fetches:
            memory = self.bank.attach(fetches, self.config.anchor.layers, self.dtype, part)
        hidden: Tensor = self.anchor(tokens_bt, segments_bt, memory, self.dtype)
        return hidden

    def summed_loss(
        self,
        rows_bt: Tensor,
        segments_bt: Tensor,
        fetches: Sequence[Fetch],
        part: slice = slice(None),
    ) -> Tensor:
        """Summed next-token loss in nats of packed rows [b, t + 1] over `predicted` positions."""
        hidden_btd = self.hidden(rows_bt[:, :-1], segments_bt[:, :-1], fetches, part)
        scored_bt = predicted(segments_bt)
        return summed_cross_entropy(hidden_btd[scored_bt], self.head_vd, rows_bt[:, 1:][scored_bt])

    @property
    def head_vd(self) -> Tensor:
        return self.anchor.embedding if self.anchor.head is None else self.anchor.head

    def state(self) -> dict[str, Tensor]:
        """Every weight, and the bank's moments, by name."""
        anchor = {f"anchor.{name}": tensor for name, tensor in self.anchor.state_dict().items()}
        bank = self.bank.state() if self.bank else {}
        return anchor | {f"bank.{name}": tensor for name, tensor in bank.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over the tensors of `state()`; others in the mapping are left alone."""
        self.anchor.load_state_dict(_under("anchor.", tensors))
        if self.bank:
            self.bank.load_state(_under("bank.", tensors))


def predicted(segments_bt: Tensor) -> Tensor:
    """Where a packed row [b, t + 1] has a target: [b, t], the next token of the same document."""
    same_bt = segments_bt[:, 1:] == segments_bt[:, :-1]
    return same_bt & (segments_bt[:, 1:] != PADDING)


def resolve_precision(precision: str, device: str) -> str:
    """bf16 where the machine multiplies it natively, fp32 elsewhere; a given precision stands."""
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16" if native else "fp32"


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
