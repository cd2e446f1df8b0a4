"""Does a bank that is kept in bf16 reach the loss of one with fp32 masters?

    python benchmarks/row_format.py --results results --out benchmarks/row_format.csv

Trains the runs of row_format.yaml one after the other in RESULTS, seed by seed; what is finished
there is not trained again. A line an arm: bytes a parameter, and the test loss minus that of fp32
over paired seeds, with its interval, for the prefix key and for the document key.
"""

import argparse
from pathlib import Path

import pandas as pd

from analysis.paired import paired_differences
from analysis.runs import one_count_a_budget
from core.accounting import bank_bytes_per_parameter
from core.config import Runtime
from core.record import to_frame, write_csv
from core.train import train_run
from sweeps.grid import Trial, load_grid

GRID = Path(__file__).with_suffix(".yaml")
REFERENCE = "fp32"
KEYS = ("prefix", "document")
COLUMNS = ["difference", "low", "high", "seeds", "detectable", "by_seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    trials = sorted(load_grid(str(GRID)).trials, key=lambda trial: trial.config.seed)
    runs = pd.concat([train(trial, given.results) for trial in trials], ignore_index=True)
    runs = one_count_a_budget(runs)
    of_arm = {trial.arm: trial for trial in trials}
    table = pd.concat([compare(runs, trial) for trial in of_arm.values()], ignore_index=True)
    write_csv(table, given.out)
    print(table.to_string(index=False, float_format="%.4f"))


def train(trial: Trial, results: Path) -> pd.DataFrame:
    """The record of a run, as a table of one line."""
    folder = results / "runs" / trial.run_id
    record = train_run(trial.config, Runtime(results=results), folder, lambda _: None)
    return to_frame([record]).assign(arm=trial.arm)


def compare(runs: pd.DataFrame, trial: Trial) -> pd.DataFrame:
    """An arm beside the reference: a line a key."""
    held = bank_bytes_per_parameter(trial.config)
    return pd.concat(
        [
            paired_differences(runs, trial.arm, REFERENCE, f"loss_test_{key}")[COLUMNS]
            .assign(loss=runs.loc[runs["arm"] == trial.arm, f"loss_test_{key}"].mean())
            .assign(arm=trial.arm, key=key, bytes_per_parameter=held)
            for key in KEYS
        ]
    )[["arm", "bytes_per_parameter", "key", "loss", *COLUMNS]]


if __name__ == "__main__":
    main()
