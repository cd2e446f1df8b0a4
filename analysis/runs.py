"""Finished runs as tidy frames, from a grid's tables or from the MLflow store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import InputError
from core.record import COLUMNS, Status, from_row, read_runs, to_frame


@dataclass(frozen=True)
class GridRuns:
    """A grid's runs: the done ones, which fits see, and the others, which reports name."""

    done: pd.DataFrame
    excluded: pd.DataFrame  # diverged and failed


def load_runs(results: Path, grid: str) -> GridRuns:
    """results/<grid>/runs.csv, split by status. Raises InputError where none is done."""
    path = results / grid / "runs.csv"
    if not path.is_file():
        raise InputError(
            f"no runs of grid '{grid}': {path} is missing; run `make sweep GRID={grid}` first"
        )
    frame = read_runs(path)
    done = frame["status"] == Status.DONE
    if not done.any():
        raise InputError(f"{path} has {len(frame)} runs and none is done; see its column `cause`")
    excluded = frame[~done].reset_index(drop=True)
    return GridRuns(one_count_a_budget(frame[done].reset_index(drop=True)), excluded)


def one_count_a_budget(frame: pd.DataFrame) -> pd.DataFrame:
    """Seeds of one budget see the same tokens but for padding: `tokens` becomes their mean."""
    return frame.assign(tokens=frame.groupby("token_budget")["tokens"].transform("mean"))


def load_curves(results: Path, grid: str) -> pd.DataFrame:
    """results/<grid>/curves.csv: run_id, step, tokens, loss, lr; empty where no curve was kept."""
    path = results / grid / "curves.csv"
    columns = ["run_id", "step", "tokens", "loss", "lr"]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    return pd.read_csv(path, dtype={"run_id": str})[columns]


def load_extra(results: Path, grid: str, name: str) -> pd.DataFrame:
    """results/<grid>/NAME.csv: probes (a row a fact asked), blocking (run_id, blocked, loss); or
    empty.
    """
    path = results / grid / f"{name}.csv"
    return (
        pd.read_csv(path, dtype={"run_id": str, "bucket": str})
        if path.is_file()
        else pd.DataFrame()
    )


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


def export_from_mlflow(uri: str, grid: str) -> pd.DataFrame:
    """The table of runs, rebuilt from an MLflow store: text columns are tags, numbers final
    metrics.
    """
    from mlflow.tracking import MlflowClient  # slow, and only this function needs it

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(grid)
    if experiment is None:
        raise InputError(f"the MLflow store {uri} has no experiment '{grid}'")
    rows: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        rows += [{**run.data.metrics, **run.data.tags} for run in page]
        token = page.token
        if not token:
            break
    finished = [
        from_row({k: v for k, v in row.items() if k in COLUMNS}) for row in rows if "status" in row
    ]
    return to_frame(finished).sort_values(
        ["arm", "n_anchor", "seed"], kind="stable", ignore_index=True
    )
