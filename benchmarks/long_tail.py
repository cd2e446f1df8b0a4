r"""Where does a memory help: on common or on rare tokens, and in which source of the text?

    make sweep GRID=routing-gain RESULTS=elsewhere
    python benchmarks/long_tail.py --results elsewhere --grid routing-gain \
        --out benchmarks/long_tail.csv

The test loss under the prefix key of a grid's runs, on the windows and tokens that it is reported
on, taken apart: by how often the training text holds the predicted token (fifths of the scored
tokens, the fifth is the long tail), and by source. Differences to generic and to dense at equal
runtime parameters are those of the analysis, with an interval over seeds; documents_low and
documents_high hold 95 % of the same difference over test documents drawn again. The runs need their
weights, which the committed tables have not: RESULTS must be a folder in which they were trained.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from analysis.paired import EQUAL_RUNTIME, paired_differences
from analysis.runs import load_runs
from core.config import Runtime
from core.corpus.prepare import prepare_windows
from core.dataset import PADDING, Dataset, Windows
from core.evaluate import BATCH, padded, sampled, token_losses
from core.model import Model
from core.prepare import prepare
from core.record import write_csv
from core.subject import open_run

FIFTHS = ("commonest fifth", "second fifth", "third fifth", "fourth fifth", "rarest fifth")
ALL = "all"
RESAMPLES = 200  # of the documents; each takes a second


@dataclass(frozen=True)
class Sums:
    """Of one run, by window w and part p of the scored tokens."""

    nats_wp: NDArray[np.float64]
    tokens_wp: NDArray[np.float64]
    parts: tuple[str, ...]
    document_w: NDArray[np.int64]  # index of the window's document

    def losses(self, times_w: NDArray[np.int64]) -> NDArray[np.float64]:
        """Nats/token by part [p], with window w counted times_w[w] times."""
        return np.asarray(times_w @ self.nats_wp / (times_w @ self.tokens_wp))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a CSV")
    given = parser.parse_args()
    runtime = Runtime(results=given.results)
    runs = load_runs(given.results, given.grid).done
    sums = [sums_by_part(given.results / "runs" / run, runtime) for run in runs["run_id"]]
    table = differences(runs, sums, np.ones(len(sums[0].document_w), np.int64))
    again = np.stack([differences(runs, sums, w)["difference"] for w in resamples(sums[0])])
    low, high = np.quantile(again, (0.025, 0.975), axis=0)
    table = table.assign(documents_low=low, documents_high=high)
    write_csv(table, given.out)
    print(table.to_string(index=False, float_format="%.4f"))


def resamples(sums: Sums) -> Iterator[NDArray[np.int64]]:
    """How often each window [w] is counted when documents are drawn with replacement."""
    documents = int(sums.document_w.max()) + 1
    generator = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        drawn = generator.integers(documents, size=documents)
        yield np.bincount(drawn, minlength=documents)[sums.document_w]


def sums_by_part(folder: Path, runtime: Runtime) -> Sums:
    """The run's loss, apart by window and part."""
    subject = open_run(folder, runtime)
    assert isinstance(subject.model, Model)
    dataset = prepare(subject.data, subject.tree, runtime.cache, runtime.device)
    chosen = sampled(dataset.test, subject.model.config.evaluate.test_windows)
    windows = dataset.test.take(chosen)
    nll_n, token_n, window_n = scored(subject.model, windows)
    fifth_n, source_n = fifths(dataset, token_n), windows.source_n[window_n]
    parts = {ALL: np.ones(len(nll_n), bool)}
    parts |= {name: fifth_n == i for i, name in enumerate(FIFTHS)}
    parts |= {name: source_n == i for i, name in enumerate(dataset.sources)}
    print(folder.name, {name: int(part_n.sum()) for name, part_n in parts.items()}, flush=True)
    size = len(chosen)
    nats = [np.bincount(window_n, nll_n * part_n, size) for part_n in parts.values()]
    tokens = [np.bincount(window_n, part_n, size) for part_n in parts.values()]
    split = prepare_windows(subject.data, runtime.cache).split("test")
    _, document_w = np.unique(split.document[chosen], return_inverse=True)
    return Sums(np.stack(nats, -1), np.stack(tokens, -1), tuple(parts), document_w)


@torch.no_grad()
def scored(
    model: Model, windows: Windows
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Loss, token and window of each scored token [n]: second parts, prefix key."""
    found = []
    for start in range(0, len(windows.length_n), BATCH):
        rows = slice(start, start + BATCH)
        tokens_bt, segments_bt, prefix_b = padded(windows, rows)
        path_bl = torch.from_numpy(windows.path_prefix_nl[rows].astype(np.int64))
        nll_bt = token_losses(model, tokens_bt, segments_bt, path_bl).double()
        position_t = torch.arange(1, tokens_bt.shape[1])
        second_bt = (segments_bt[:, 1:] != PADDING) & (position_t >= prefix_b[:, None])
        window_n = start + second_bt.nonzero()[:, 0]
        found.append((nll_bt[second_bt], tokens_bt[:, 1:][second_bt], window_n))
    nll_n, token_n, window_n = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return nll_n, token_n, window_n


def fifths(dataset: Dataset, token_n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each scored token the fifth [n], 0 to 4: tokens that training has more often come first,
    and each fifth has as many scored tokens as whole types allow."""
    size = len(dataset.token_bytes_v)
    rows = dataset.train
    trained_v = np.bincount(rows.tokens_nt[rows.segments_nt != PADDING], minlength=size)
    scored_v = np.bincount(token_n, minlength=size)
    order_v = np.argsort(-trained_v, kind="stable")
    middle_v = np.cumsum(scored_v[order_v]) - scored_v[order_v] / 2
    fifth_v = np.empty(size, np.int64)
    fifth_v[order_v] = np.minimum(len(FIFTHS) * middle_v // len(token_n), len(FIFTHS) - 1)
    return fifth_v[token_n]


def differences(
    runs: pd.DataFrame, sums: Sequence[Sums], times_w: NDArray[np.int64]
) -> pd.DataFrame:
    """ffn minus generic and minus dense at equal runtime, a row a part and anchor."""
    loss_rp = np.stack([own.losses(times_w) for own in sums])
    found = [
        paired_differences(runs.assign(loss=loss_r), "ffn", against, "loss").assign(part=part)
        for part, loss_r in zip(sums[0].parts, loss_rp.T, strict=True)
        for against in ("generic", EQUAL_RUNTIME)
    ]
    table = pd.concat(found, ignore_index=True)
    return table[["part", *table.columns.drop("part")]]


if __name__ == "__main__":
    main()
