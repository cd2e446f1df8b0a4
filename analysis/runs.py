"""Finished runs of a grid as tidy frames, from the tables that the sweep keeps."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from core.errors import InputError
from core.record import CURVE, Status, read_runs

# Of a grid's folder. Runs in the second do not count as done: those of the default grid are there,
# so that a newcomer's first sweep trains.
TABLES = ("runs.csv", "records.csv")


@dataclass(frozen=True)
class GridRuns:
    """A grid's runs: the done ones, which fits see, and the others, which reports name."""

    done: pd.DataFrame
    excluded: pd.DataFrame  # diverged, failed and stopped

    @property
    def tried(self) -> pd.DataFrame:
        """The done ones, and those that early stopping ended: what learning rates were tried."""
        stopped = self.excluded[self.excluded["status"] == Status.STOPPED]
        return pd.concat([self.done, stopped], ignore_index=True) if len(stopped) else self.done


def load_runs(results: Path, grid: str) -> GridRuns:
    """The records of results/<grid>, split by status. Raises InputError where none is done."""
    paths = tables_of(results / grid)
    if not paths:
        raise InputError(
            f"no runs of grid '{grid}': {results / grid / TABLES[0]} is missing; "
            f"run `make sweep GRID={grid}` first"
        )
    frame = pd.concat([read_runs(path) for path in paths], ignore_index=True)
    done = frame["status"] == Status.DONE
    if not done.any():
        raise InputError(f"{paths[0]} has {len(frame)} runs and none is done; see column `cause`")
    excluded = frame[~done].reset_index(drop=True)
    return GridRuns(one_count_a_budget(frame[done].reset_index(drop=True)), excluded)


def tables_of(folder: Path) -> list[Path]:
    """The tables of runs that a grid's folder holds."""
    return [folder / name for name in TABLES if (folder / name).is_file()]


def one_count_a_budget(frame: pd.DataFrame) -> pd.DataFrame:
    """Seeds of one budget see the same tokens but for padding: `tokens` becomes their mean.

    Adds `epochs`: how often training went over its text, to the nearest whole number.
    """
    tokens, distinct = frame["tokens"], frame["unique_tokens"]
    epochs = (tokens / distinct.where(distinct > 0, tokens)).round()
    means = frame.groupby("token_budget")["tokens"].transform("mean")
    return frame.assign(tokens=means, epochs=epochs)


def main_budget(runs: pd.DataFrame) -> float:
    """The number of training tokens that most points of the grid have; the larger of equals."""
    points = runs.drop_duplicates(["arm", "anchor", "n_fetched", "n_bank", "placement", "tokens"])
    counts = points["tokens"].value_counts()
    return float(counts.index[counts == counts.max()].max())


def near(values: pd.Series, ratio: float) -> pd.Series:
    """Which values are all but alike: a number a group. A step over `ratio` begins another."""
    ordered = values.sort_values(kind="stable")
    return (ordered > ratio * ordered.shift()).cumsum().reindex(values.index)


def load_curves(results: Path, grid: str) -> pd.DataFrame:
    """results/<grid>/curves.csv: run_id, step, tokens, loss, lr; empty where no curve was kept."""
    path = results / grid / "curves.csv"
    columns = ["run_id", *CURVE]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    return pd.read_csv(path, dtype={"run_id": str})[columns]


def load_extra(results: Path, grid: str, runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Answers to facts of the runs: `probes`, or `blocking` (before and after a part of the bank is
    switched off), a row a fact; empty where none was asked.

    From results/<grid>/NAME.csv or else from results/runs/<run id>/NAME.csv of each run.
    """
    of_runs = [results / "runs" / run / f"{name}.csv" for run in runs["run_id"]]
    whole = results / grid / f"{name}.csv"
    paths = [whole] if whole.is_file() else [path for path in of_runs if path.is_file()]
    tables = [pd.read_csv(path, dtype={"run_id": str, "bucket": str}) for path in paths]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def load_question(results: Path, grid: str) -> str:
    """The first comment block of the grid's YAML, as kept beside its runs; empty where there is
    none.
    """
    path = results / grid / "grid.yaml"
    if not path.is_file():
        return ""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            if lines:
                break
            continue
        lines.append(line.lstrip("#").strip())
    return " ".join(lines)
