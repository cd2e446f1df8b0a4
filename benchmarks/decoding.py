"""What does a token cost that a model with memory writes, beside the wider dense model?

    python benchmarks/decoding.py --out benchmarks/decoding.csv

One prompt of 64 tokens is continued greedily, on one thread. `merged` is what `core.generate` does:
keys and values of tokens read before are kept, the fetched block is merged into the weights (kv has
a softmax of its own and stays beside them). `unmerged` keeps the block beside the weights,
`uncached` reads the whole text for every token as well. Sizes are 5x128 of 1M parameters with
blocks of a tenth of that, and the 160M anchor of arXiv 2510.02375 with its fetched size; `dense`
has an FFN wider by as much as the ffn block. Variants take turns within one process; ratios are to
`dense`, medians and quartiles over rounds. `first` is CPU time up to the first new token: fetching
the block, merging it, and reading the prompt.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.config import RunConfig, parse_config
from core.generate import continue_texts
from core.memory.bank import Fetch
from core.model import Model
from core.reader import Reader

SMALL = {"layers": 5, "d_model": 128, "heads": 4, "head_dim": 32, "ffn": 336}
LARGE = {"layers": 35, "d_model": 512, "heads": 12, "head_dim": 32, "ffn": 2048}
FETCHED = {"1M": 96_000, "160M": 18_063_360}  # parameters: widths 50 and 336 of an ffn block
PROMPT, NEW, ANEW, CONTEXT = 64, 32, 4, 512  # tokens; ANEW where each is read anew
WARM_UP, ROUNDS = 1, 5
Writer = Callable[[int], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    frames = []
    for size, anchor in (("1M", SMALL), ("160M", LARGE)):
        for precision in ("fp32", "bf16"):
            frames.append(measure(size, precision, writers(size, anchor, precision)))
            print(frames[-1].to_string(index=False, float_format="%.3f"), flush=True)
    pd.concat(frames).to_csv(given.out, index=False, float_format="%.4g")


def writers(
    size: str, anchor: dict[str, int], precision: str
) -> dict[tuple[str, str], tuple[Writer, int]]:
    """By memory and variant: what writes a number of new tokens, and how many to ask of it."""
    width = FETCHED[size] // (3 * anchor["layers"] * anchor["d_model"])
    dense = Model(config({**anchor, "ffn": anchor["ffn"] + width}, {}), "cpu", precision)
    found: dict[tuple[str, str], tuple[Writer, int]] = {("none", "dense"): (writer(dense), NEW)}
    types = ("ffn", "kv", "lora-qk", "lora-vo", "lora-ffn") if size == "1M" else ("ffn",)
    for name in types:
        memory = {"type": name, "fetched": FETCHED[size], "shape": [1]}
        model = Model(config(anchor, memory), "cpu", precision)
        found[name, "merged"] = writer(model), NEW
        found[name, "unmerged"] = writer(Variant(model, unmerged)), NEW
        found[name, "uncached"] = writer(Variant(model, uncached)), ANEW
    return found


def config(anchor: dict[str, int], memory: dict[str, object]) -> RunConfig:
    return parse_config({"anchor": anchor, "memory": memory, "tree": {"branching": [2]}}, "here")


@dataclass(frozen=True)
class Variant:
    """A model whose texts are read in another way."""

    model: Model
    open: Callable[[Model, Sequence[Fetch] | None], Reader]
    device: str = "cpu"

    @property
    def head_vd(self) -> Tensor:
        return self.model.head_vd

    def fetch(self, path_bl: Tensor) -> list[Fetch]:
        return self.model.fetch(path_bl)

    def hidden(
        self, tokens_bt: Tensor, segments_bt: Tensor, fetches: Sequence[Fetch] | None
    ) -> Tensor:
        return self.model.hidden(tokens_bt, segments_bt, fetches)

    def reader(self, fetches: Sequence[Fetch] | None) -> Reader:
        return self.open(self.model, fetches)


class Anew(Reader):
    """Reads all of a text for every token."""

    def read(self, tokens_bt: Tensor, segments_bt: Tensor) -> Tensor:
        self._forget()
        return super().read(tokens_bt, segments_bt)


def unmerged(
    model: Model, fetches: Sequence[Fetch] | None, reader: type[Reader] = Reader
) -> Reader:
    assert model.bank and fetches
    layers = model.config.anchor.layers
    memory = model.bank.attach(fetches, layers, model.dtype)
    return reader(model.anchor, layers, model.dtype, lambda *_: memory)


uncached = partial(unmerged, reader=Anew)


def writer(model: Model | Variant) -> Writer:
    draw = np.random.default_rng(0)
    prompt, path_nl = [draw.integers(1, 4_000, PROMPT).tolist()], np.zeros((1, 1), np.int32)
    return lambda new_tokens: continue_texts(model, prompt, path_nl, new_tokens, CONTEXT)


def measure(
    size: str, precision: str, timed: dict[tuple[str, str], tuple[Writer, int]]
) -> pd.DataFrame:
    """One row a variant: CPU milliseconds of the first token and of each one behind it."""
    rounds = [
        {key: token_costs(*asked) for key, asked in timed.items()} for _ in range(WARM_UP + ROUNDS)
    ][WARM_UP:]
    rows = []
    for key in timed:
        first, token = np.median([costs[key] for costs in rounds], axis=0)
        ratios = [costs[key][1] / costs["none", "dense"][1] for costs in rounds]
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        row = {"size": size, "precision": precision, "memory": key[0], "variant": key[1]}
        row |= {"first_ms": 1e3 * first, "token_ms": 1e3 * token}
        rows.append(row | {"ratio": middle, "ratio_low": low, "ratio_high": high})
    return pd.DataFrame(rows)


def token_costs(write: Writer, new: int) -> tuple[float, float]:
    """CPU seconds up to the first new token, and of each one behind it."""
    started = time.process_time()
    write(1)
    first = time.process_time() - started
    write(1 + new)
    return first, (time.process_time() - started - 2 * first) / new


if __name__ == "__main__":
    main()
