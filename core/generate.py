"""Text in, text out: greedy generation, and the probability of given continuations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.config import RunConfig
from core.corpus.prepare import prepare_windows
from core.corpus.tokenizer import END_OF_TEXT_ID
from core.dataset import PADDING
from core.memory.bank import Fetch
from core.reader import Reader

BATCH = 64  # texts in one forward pass

# [n, levels], as `core.load.Router` routes any texts: the prompts, or others given in their place;
# None: memory off
Paths = NDArray[np.int32] | None
Ids = list[int]


class LanguageModel(Protocol):
    """What generation asks of a model: `core.model.Model` has it."""

    device: str

    @property
    def head_vd(self) -> Tensor: ...

    def fetch(self, path_bl: Tensor) -> list[Fetch]: ...

    def hidden(
        self, tokens_bt: Tensor, segments_bt: Tensor, fetches: Sequence[Fetch] | None
    ) -> Tensor: ...

    def reader(self, fetches: Sequence[Fetch] | None) -> Reader: ...


@dataclass(frozen=True)
class Codec:
    """Text to the tokens that a model reads, and back."""

    tokenizer: Tokenizer
    lead: tuple[int, ...]  # tokens before every text, as in training
    end: int  # the token that closes a document
    context: int  # tokens that the model was trained to see; a longer text loses its beginning

    @classmethod
    def of_run(cls, config: RunConfig, cache: Path) -> "Codec":
        tokenizer = prepare_windows(config.data, cache).tokenizer
        return cls(tokenizer, (END_OF_TEXT_ID,), END_OF_TEXT_ID, config.data.seq_len)

    def encode(self, text: str) -> Ids:
        ids: Ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Ids) -> str:
        text: str = self.tokenizer.decode(ids)
        return text


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation: its log-probability in nats, and whether greedy decoding gives it."""

    logprob: float
    greedy: bool


def generate(
    model: LanguageModel, codec: Codec, prompts: Sequence[str], path_nl: Paths, new_tokens: int
) -> list[str]:
    """The most likely next token `new_tokens` times, or until the document ends."""
    starts = [[*codec.lead, *codec.encode(prompt)] for prompt in prompts]
    continued = continue_texts(model, starts, path_nl, new_tokens, codec.context)
    return [codec.decode(_until(ids, codec.end)) for ids in continued]


@torch.no_grad()
def continue_texts(
    model: LanguageModel, starts: Sequence[Ids], path_nl: Paths, new_tokens: int, context: int
) -> list[Ids]:
    """The `new_tokens` tokens behind each start, one or more tokens long; the likeliest each time.

    The model sees the last `context` tokens. A text longer than that is read anew for each token,
    as every token in it then stands elsewhere.
    """
    written = [list(start) for start in starts]
    for rows in _batches([len(start) for start in starts]):
        reader = model.reader(_fetch(model, path_nl, rows))
        for _ in range(new_tokens):
            seen = [torch.tensor(written[row][-context:]) for row in rows]
            hidden_bd = reader.read(*_pad_left(seen, model.device))[:, -1].float()
            token_b = F.linear(hidden_bd, model.head_vd).argmax(-1)
            for row, token in zip(rows, token_b.tolist(), strict=True):
                written[row].append(token)
    return [ids[len(start) :] for ids, start in zip(written, starts, strict=True)]


@torch.no_grad()
def score_continuations(
    model: LanguageModel,
    codec: Codec,
    prompts: Sequence[Ids],
    continuations: Sequence[Ids],
    path_nl: Paths,
) -> list[Likelihood]:
    """Of each continuation behind its prompt, in token ids; scores in fp32.

    Tokens before the last `codec.context` are not seen; a continuation longer than the context is
    scored over its end.
    """
    texts = [
        ([*codec.lead, *prompt, *continuation])[-codec.context - 1 :]
        for prompt, continuation in zip(prompts, continuations, strict=True)
    ]
    found: dict[int, Likelihood] = {}
    for rows in _batches([len(text) for text in texts]):
        inputs = [texts[row][:-1] for row in rows]
        hidden_btd = _hidden(model, inputs, _fetch(model, path_nl, rows))
        for place, row in enumerate(rows):
            n = min(len(continuations[row]), len(inputs[place]))
            end = len(inputs[place])
            hidden_nd = hidden_btd[place, end - n : end].float()
            found[row] = _likelihood(
                F.linear(hidden_nd, model.head_vd), texts[row][len(texts[row]) - n :]
            )
    return [found[row] for row in range(len(texts))]


def _likelihood(scores_nv: Tensor, targets: Ids) -> Likelihood:
    target_n = torch.tensor(targets, dtype=torch.long, device=scores_nv.device)
    nll = F.cross_entropy(scores_nv, target_n, reduction="sum")
    return Likelihood(-float(nll), bool((scores_nv.argmax(-1) == target_n).all()))


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of near-equal length, at most BATCH at once."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return (order[start : start + BATCH] for start in range(0, len(order), BATCH))


def _fetch(model: LanguageModel, path_nl: Paths, rows: list[int]) -> list[Fetch] | None:
    if path_nl is None:
        return None
    return model.fetch(torch.from_numpy(path_nl[rows].astype(np.int64)).to(model.device))


def _hidden(model: LanguageModel, inputs: Sequence[Ids], fetches: list[Fetch] | None) -> Tensor:
    """Hidden states [b, t, d]; padding stands behind each text, where causal attention hides it."""
    rows = [torch.tensor(ids) for ids in inputs]
    tokens_bt = pad_sequence(rows, batch_first=True).to(model.device)
    return model.hidden(tokens_bt, torch.zeros_like(tokens_bt), fetches)


def _pad_left(texts: list[Tensor], device: str) -> tuple[Tensor, Tensor]:
    """Tokens and segments [b, t]; all texts end, and go on, in the same place."""
    pad = partial(pad_sequence, batch_first=True, padding_side="left")
    segments_bt = pad([torch.zeros_like(text) for text in texts], padding_value=PADDING)
    return pad(texts).to(device), segments_bt.to(device)


def _until(ids: Ids, end: int) -> Ids:
    return ids[: ids.index(end)] if end in ids else ids
