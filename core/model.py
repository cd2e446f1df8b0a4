"""Anchor and bank together: what one run trains, evaluates and saves."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from core import parallel
from core.accounting import replaced_layers
from core.anchor import Anchor
from core.config import Paths, RunConfig
from core.dataset import PADDING
from core.errors import InputError
from core.loss import summed_cross_entropy
from core.memory import create_bank, create_token_memory
from core.memory.bank import BankPlace, Fetch, RowGradient, row_gradients
from core.memory.base import Attached
from core.past import Past
from core.reader import Reader, merged_anchor, split_memory

BANK_FOLDER = "bank"  # folder of a run whose bank lies on disk


class Model:
    """The anchor, its bank (None without memory) and the precision of their products."""

    def __init__(
        self,
        config: RunConfig,
        device: str,
        precision: str,
        place: BankPlace | None = None,
    ) -> None:
        """`place` of the bank; none: on the device."""
        self.config, self.device, self.precision = config, device, precision
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.anchor = Anchor(
            config.anchor, config.data.vocab_size, config.seed, replaced_layers(config)
        )
        parallel.shard(device, *self.anchor.layers, self.anchor)
        self.anchor.to(device)
        self.bank = create_bank(config, place or BankPlace(device))
        self.token_memory = create_token_memory(config)
        if self.token_memory:
            parallel.shard(device, *self.token_memory.readers)
            self.token_memory.to(device).tables_to(device)
        self.anchor.requires_grad_(config.train.mode != "frozen")

    @classmethod
    def on_paths(
        cls, config: RunConfig, device: str, paths: Paths, place: BankPlace | None = None
    ) -> "Model":
        """On the sweep's `paths`, as far as the config leaves them open."""
        paths = resolved_paths(config, device, paths)
        model = cls(config, device, paths.precision, place)
        model.anchor.fused = paths.attention == "fused"
        if paths.trunk == "compiled":
            model.anchor.compile_trunk()
        return model

    def route(self, path_bl: Tensor) -> Tensor:
        """The bank's path of each document: its tree path, or block 0 for the generic control."""
        if self.config.memory.type == "generic":
            return torch.zeros(len(path_bl), 1, dtype=torch.long, device=path_bl.device)
        return path_bl

    def fetch(self, path_bl: Tensor) -> list[Fetch]:
        """The distinct blocks of a batch as leaves; empty without a bank."""
        return self.bank.fetch(self.route(path_bl)) if self.bank else []

    def read_ahead(self, path_bl: Tensor) -> None:
        """Begin to read what the next batch will fetch, where that takes time."""
        if self.bank:
            self.bank.read_ahead(self.route(path_bl))

    def row_gradients(self, fetches: Sequence[Fetch]) -> Sequence[RowGradient]:
        """What RowAdamW takes after a backward pass: of blocks, or of the rows that tokens read.

        They are sums over processes; the blocks lie with the first alone.
        """
        if self.token_memory:
            return self.token_memory.row_gradients()
        gradients = row_gradients(fetches)
        for gradient in gradients:
            parallel.add_up(gradient.values)
        return gradients if parallel.first() else ()

    def attach(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        fetches: Sequence[Fetch] | None,
        part: slice,
    ) -> Sequence[Attached]:
        """The memory of each layer for the documents `part`; `fetches` None: memory off."""
        layers = self.config.anchor.layers
        if fetches is None:
            return ()
        if self.token_memory:
            return self.token_memory.attach(tokens_bt, segments_bt, self.dtype, layers)
        return self.bank.attach(fetches, layers, self.dtype, part) if self.bank else ()

    def hidden(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        fetches: Sequence[Fetch] | None,
        part: slice = slice(None),
    ) -> Tensor:
        """Last hidden states [b, t, d] of the documents `part` of the fetched batch.

        `fetches` None: memory off.
        """
        memory = self.attach(tokens_bt, segments_bt, fetches, part)
        hidden: Tensor = self.anchor(tokens_bt, segments_bt, memory, self.dtype)
        return hidden

    def reader(self, fetches: Sequence[Fetch] | None) -> Reader:
        """Reads the documents of the fetched batch as they grow; `fetches` None: memory off."""
        layers = self.config.anchor.layers
        blocks = self.bank.attach(fetches, layers, self.dtype) if self.bank and fetches else ()
        merged, left = split_memory(blocks or self.anchor.bare)
        by_token = self.token_memory if fetches is not None else None

        def attach(
            tokens_bt: Tensor, segments_bt: Tensor, pasts: Sequence[Past]
        ) -> Sequence[Attached]:
            if by_token:
                return by_token.attach(tokens_bt, segments_bt, self.dtype, layers, pasts)
            return left

        return Reader(merged_anchor(self.anchor, merged, self.dtype), layers, self.dtype, attach)

    def summed_loss(
        self,
        rows_bt: Tensor,
        segments_bt: Tensor,
        fetches: Sequence[Fetch],
        part: slice = slice(None),
    ) -> Tensor:
        """Summed next-token loss in nats of packed rows [b, t + 1] over `predicted` positions.

        The memory's penalty has its gradient there and adds nothing to the value.
        """
        tokens_bt, past_bt = rows_bt[:, :-1], segments_bt[:, :-1]
        memory = self.attach(tokens_bt, past_bt, fetches, part)
        hidden_btd = self.anchor(tokens_bt, past_bt, memory, self.dtype)
        scored_bt = predicted(segments_bt)
        targets_n = rows_bt[:, 1:][scored_bt]
        loss = summed_cross_entropy(hidden_btd[scored_bt], self.head_vd, targets_n)
        for attached in memory:
            if attached.penalty is not None:
                loss = loss + len(targets_n) * (attached.penalty - attached.penalty.detach())
        return loss

    def dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and weights that AdamW trains: the anchor's, then the memory's as memory.NAME."""
        if self.config.train.mode != "frozen":
            yield from self.anchor.named_parameters()
        if self.token_memory:
            yield from self.token_memory.named_parameters(prefix="memory")

    @property
    def head_vd(self) -> Tensor:
        return self.anchor.embedding if self.anchor.head is None else self.anchor.head

    def state(self) -> dict[str, Tensor]:
        """Every weight in memory, and the moments of blocks and rows, by name.

        Of several processes the first has them whole.
        """
        named = {f"anchor.{name}": tensor for name, tensor in self.anchor.state_dict().items()}
        named |= {f"bank.{name}": tensor.detach() for name, tensor in self._memory_state().items()}
        return {name: parallel.whole(tensor) for name, tensor in named.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over the tensors of `state()`; others in the mapping are left alone.

        Raises InputError where a bank lay in memory and now lies in files, or the other way round.
        """
        memory, given = self._memory_state(), _under("bank.", tensors)
        if parallel.first() and memory.keys() != given.keys():
            before, now = ("in memory", "on disk") if given else ("on disk", "in memory")
            raise InputError(
                f"the run's checkpoint is of a bank {before}, this one lies {now}; give the bank "
                "that the run began with, or remove its folder"
            )
        self.load_anchor(tensors)
        with torch.no_grad():
            for name, tensor in memory.items():
                tensor.copy_(parallel.share(given[name], tensor))

    def load_anchor(self, tensors: dict[str, Tensor]) -> None:
        """Take over the anchor of another run's weights."""
        own = self.anchor.state_dict()
        given = _under("anchor.", tensors)
        self.anchor.load_state_dict({n: parallel.share(x, own[n]) for n, x in given.items()})

    def _memory_state(self) -> dict[str, Tensor]:
        if self.token_memory:
            dense = {f"{n}.dense": tensor for n, tensor in self.token_memory.state_dict().items()}
            return dense | self.token_memory.table_state()
        return self.bank.state() if self.bank else {}


def is_weight(name: str) -> bool:
    """Whether a tensor of `Model.state()` outlives training; moments and row counts do not."""
    return name.startswith("anchor.") or name.endswith((".rows", ".dense"))


def predicted(segments_bt: Tensor) -> Tensor:
    """Where a packed row [b, t + 1] has a target: [b, t], the next token of the same document."""
    same_bt = segments_bt[:, 1:] == segments_bt[:, :-1]
    return same_bt & (segments_bt[:, 1:] != PADDING)


def resolved_paths(config: RunConfig, device: str, paths: Paths) -> Paths:
    """Those that a run takes of the sweep's `paths`: a precision that its config gives stands."""
    given = config.train.precision
    asked = paths.precision if given == "auto" else given
    return paths.model_copy(update={"precision": resolve_precision(asked, device)})


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
