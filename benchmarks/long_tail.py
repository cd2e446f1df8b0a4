r"""Where does a memory help: on common or on rare tokens, and in which source of the text?

    make sweep GRID=routing-gain RESULTS=elsewhere
    python benchmarks/long_tail.py --results elsewhere --grid routing-gain \
        --out benchmarks/long_tail.csv

The test loss under the prefix key of a grid's runs, on the windows and tokens that it is reported
on, taken apart: by how often the training text holds the predicted token (fifths of the scored
tokens, the fifth is the long tail), and by source. Differences to generic and to dense at equal
runtime parameters are those of the analysis. The runs need their weights, which the committed
tables have not, so RESULTS must be a folder in which they were trained.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from analysis.paired import EQUAL_RUNTIME, paired_differences
from analysis.runs import load_runs
from core.config import Runtime
from core.dataset import PADDING, Dataset, Windows
from core.evaluate import BATCH, sample, token_losses
from core.model import Model
from core.prepare import prepare
from core.record import write_csv
from core.subject import open_run

FIFTHS = ("commonest fifth", "second fifth", "third fifth", "fourth fifth", "rarest fifth")
ALL = "all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a CSV")
    given = parser.parse_args()
    runtime = Runtime(results=given.results)
    runs = load_runs(given.results, given.grid).done
    losses = [losses_by_part(given.results / "runs" / r, runtime) for r in runs["run_id"]]
    table = differences(runs, pd.DataFrame(losses, index=runs.index))
    write_csv(table, given.out)
    print(table.to_string(index=False, float_format="%.4f"))


def losses_by_part(folder: Path, runtime: Runtime) -> dict[str, float]:
    """Nats/token of the run by part of the scored tokens."""
    subject = open_run(folder, runtime)
    assert isinstance(subject.model, Model)
    dataset = prepare(subject.data, subject.tree, runtime.cache, runtime.device)
    nll_n, token_n, source_n = scored(subject.model, dataset)
    fifth_n = fifths(dataset, token_n)
    parts = {ALL: np.ones(len(nll_n), bool)}
    parts |= {name: fifth_n == i for i, name in enumerate(FIFTHS)}
    parts |= {name: source_n == i for i, name in enumerate(dataset.sources)}
    print(folder.name, {name: int(part_n.sum()) for name, part_n in parts.items()}, flush=True)
    return {name: float(nll_n[part_n].mean()) for name, part_n in parts.items()}


def scored(
    model: Model, dataset: Dataset
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint8]]:
    """Loss, token and source of each scored token [n]: second parts, prefix key."""
    windows = sample(dataset.test, model.config.evaluate.test_windows)
    numbers = np.arange(len(windows.length_n))
    found = [
        _scored_batch(model, windows.take(numbers[start : start + BATCH]))
        for start in range(0, len(numbers), BATCH)
    ]
    nll_n, token_n, source_n = (np.concatenate(part) for part in zip(*found, strict=True))
    return nll_n, token_n, source_n


@torch.no_grad()
def _scored_batch(
    model: Model, windows: Windows
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint8]]:
    longest = int(windows.length_n.max())
    token_bt = windows.tokens_nt[:, :longest].astype(np.int64)
    position_t = np.arange(longest)
    real_bt = position_t < windows.length_n[:, None]
    segment_bt = torch.from_numpy(np.where(real_bt, 0, PADDING).astype(np.uint8))
    path_bl = torch.from_numpy(windows.path_prefix_nl.astype(np.int64))
    nll_bt = token_losses(model, torch.from_numpy(token_bt), segment_bt, path_bl).double().numpy()
    chosen_bt = (real_bt & (position_t >= windows.prefix_n[:, None]))[:, 1:]
    source_bt = np.broadcast_to(windows.source_n[:, None], chosen_bt.shape)
    return nll_bt[chosen_bt], token_bt[:, 1:][chosen_bt], source_bt[chosen_bt]


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


def differences(runs: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """ffn minus generic and minus dense at equal runtime, a row a part and anchor."""
    found = [
        paired_differences(runs.assign(loss=losses[part]), "ffn", against, "loss").assign(part=part)
        for part, against in product(losses, ("generic", EQUAL_RUNTIME))
    ]
    table = pd.concat(found, ignore_index=True)
    return table[["part", *table.columns.drop("part")]]


if __name__ == "__main__":
    main()
