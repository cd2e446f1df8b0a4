"""A frozen pretrained model with a bank on top: only the bank learns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from core.batches import batch_rows
from core.config import TrainConfig
from core.dataset import PADDING
from core.errors import InputError
from core.generate import Codec
from core.loss import summed_cross_entropy
from core.memory.bank import Bank, BankPlace, Fetch, row_gradients
from core.memory.base import Attached
from core.memory.ffn import FFNMemory
from core.memory.optimizer import RowAdamW
from core.model import predicted
from core.posthoc.llama import Llama
from core.reader import Reader, split_memory
from core.schedule import rate

BATCH = 16  # rows scored at once
Log = Callable[[int, int, float], None]


class PostHocModel:
    """A `core.generate.LanguageModel` over a Llama; bank None: the model as it was. The bank of a
    `generic` one is a block for all documents, whatever their paths.
    """

    def __init__(
        self, llama: Llama, bank: Bank | None, device: str, precision: str, generic: bool = False
    ) -> None:
        self.llama, self.device = llama, device
        self.bank, self.generic = bank, generic
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    @property
    def head_vd(self) -> Tensor:
        return self.llama.head_vd

    def fetch(self, path_bl: Tensor) -> list[Fetch]:
        """The distinct blocks of a batch as leaves; empty without a bank."""
        own_bl = torch.zeros_like(path_bl[:, :1]) if self.generic else path_bl
        return self.bank.fetch(own_bl) if self.bank else []

    def hidden(
        self, tokens_bt: Tensor, segments_bt: Tensor, fetches: Sequence[Fetch] | None
    ) -> Tensor:
        """Last hidden states [b, t, d]."""
        return self.llama(tokens_bt, segments_bt, self._attach(fetches), self.dtype)

    def reader(self, fetches: Sequence[Fetch] | None) -> Reader:
        """Reads the documents of the fetched batch as they grow; `fetches` None: memory off."""
        merged, left = split_memory(self._attach(fetches))
        llama = self.llama.merged(merged, self.dtype)
        return Reader(llama, len(left), self.dtype, lambda *_: left)

    def _attach(self, fetches: Sequence[Fetch] | None) -> list[Attached]:
        layers = self.llama.config.shape.layers
        if self.bank and fetches:
            return self.bank.attach(fetches, layers, self.dtype)
        return [Attached() for _ in range(layers)]

    def summed_loss(
        self,
        rows_bt: Tensor,
        segments_bt: Tensor,
        fetches: Sequence[Fetch] | None,
        scored_bt: Tensor,
    ) -> Tensor:
        """Summed next-token loss in nats of rows [b, t + 1] where `scored_bt` is true."""
        hidden_btd = self.hidden(rows_bt[:, :-1], segments_bt[:, :-1], fetches)
        return summed_cross_entropy(hidden_btd[scored_bt], self.head_vd, rows_bt[:, 1:][scored_bt])


def ffn_bank(
    llama: Llama,
    clusters: tuple[int, ...],
    widths: tuple[int, ...],
    seed: int,
    device: str = "cpu",
) -> Bank:
    """FFN-memories in every layer, a no-op at first; blocks and width of each level of the tree.

    Raises InputError for more widths than levels.
    """
    if len(widths) > len(clusters):
        raise InputError(
            f"{len(widths)} widths for a tree of {len(clusters)} levels; give at most one a level"
        )
    memory = FFNMemory(range(llama.config.shape.layers), llama.config.shape)
    return Bank(memory, clusters[: len(widths)], widths, seed, BankPlace(device))


def open_codec(folder: Path, context: int) -> Codec:
    """The tokenizer of a pretrained model's folder, for texts of at most `context` tokens.

    Raises InputError where there is none, or no end-of-text token.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise InputError(
            f"{folder / 'tokenizer.json'}: cannot be read ({error}); give the model's whole folder"
        ) from None
    names = ("<|endoftext|>", "<|end_of_text|>", "</s>")
    end = next((i for name in names if (i := tokenizer.token_to_id(name)) is not None), None)
    if end is None:
        raise InputError(f"{folder}: its tokenizer has none of {names}; give another model")
    return Codec(tokenizer, (end,), end, context)


@dataclass(frozen=True)
class TextRows:
    """One text a row, as the pretrained model's own tokenizer cuts it.

    tokens_nt int64 [n, context + 1] · segments_nt uint8, 0 or PADDING · path_nl int32 [n, levels]
    """

    tokens_nt: NDArray[np.int64]
    segments_nt: NDArray[np.uint8]
    path_nl: NDArray[np.int32]

    @classmethod
    def encode(cls, codec: Codec, texts: Sequence[str], path_nl: NDArray[np.int32]) -> "TextRows":
        """Rows led by `codec.lead`; what is longer than the context is cut off."""
        shape = (len(texts), codec.context + 1)
        tokens_nt, segments_nt = np.zeros(shape, np.int64), np.full(shape, PADDING, np.uint8)
        for row, text in enumerate(texts):
            ids = [*codec.lead, *codec.encode(text)][: codec.context + 1]
            tokens_nt[row, : len(ids)] = ids
            segments_nt[row, : len(ids)] = 0
        return cls(tokens_nt, segments_nt, path_nl)

    def take(self, chosen: NDArray[np.int64], device: str) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, segments and paths of some rows, as tensors."""
        return (
            torch.from_numpy(self.tokens_nt[chosen]).to(device),
            torch.from_numpy(self.segments_nt[chosen]).to(device),
            torch.from_numpy(self.path_nl[chosen].astype(np.int64)).to(device),
        )


def train_bank(
    model: PostHocModel,
    rows: TextRows,
    train: TrainConfig,
    weight_decay: float,
    seed: int,
    on_log: Log,
) -> None:
    """Train the bank on `rows` for train.tokens tokens, padding counted; the model stays frozen.

    `on_log` gets each step, their number and the loss in nats/token. Raises InputError where the
    rows do not fill a batch.
    """
    optimizer = RowAdamW(train.beta1, train.beta2, weight_decay, train.clip)
    steps = train.tokens // (train.batch_size * (rows.tokens_nt.shape[1] - 1))
    for step in range(steps):
        chosen = batch_rows(len(rows.tokens_nt), train.batch_size, step, seed)
        rows_bt, segments_bt, path_bl = rows.take(chosen, model.device)
        fetches = model.fetch(path_bl)
        scored_bt = predicted(segments_bt)
        loss = model.summed_loss(rows_bt, segments_bt, fetches, scored_bt) / scored_bt.sum()
        loss.backward()
        optimizer.step(row_gradients(fetches), train.lr * rate(step, steps, train))
        on_log(step + 1, steps, loss.item())


@torch.no_grad()
def mean_loss(
    model: PostHocModel, rows: TextRows, memory: bool, first_n: NDArray[np.int64] | None = None
) -> float:
    """Nats/token over all rows, routed by their paths; memory false: the model as it was.

    `first_n` is the first token of each row that is scored, none: the second, which is predicted
    from the first.
    """
    total, tokens = 0.0, 0
    place_t = torch.arange(1, rows.tokens_nt.shape[1], device=model.device)
    for start in range(0, len(rows.tokens_nt), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(rows.tokens_nt)))
        rows_bt, segments_bt, path_bl = rows.take(chosen, model.device)
        scored_bt = predicted(segments_bt)
        if first_n is not None:
            first_b1 = torch.from_numpy(first_n[chosen]).to(model.device)[:, None]
            scored_bt = scored_bt & (place_t >= first_b1)
        fetches = model.fetch(path_bl) if memory else None
        total += float(model.summed_loss(rows_bt, segments_bt, fetches, scored_bt))
        tokens += int(scored_bt.sum())
    return total / tokens
