"""The report of a grid beside its runs in MLflow: one MLflow run, renewed whenever it is drawn."""

from pathlib import Path

import mlflow
from mlflow.entities import ViewType

from core.errors import InputError
from sweeps.mlflow_client import connect

TAG = "report"  # whose value is the grid's name
FILES = ("report.html", "runs.csv")


def publish(grid: str, results: Path) -> str | None:
    """Log page, table and figures of results/<grid>; the MLflow run's id, none where MLflow has no
    experiment of the grid.

    Raises InputError where nothing was drawn yet.
    """
    folder = results / grid
    if not (folder / "report.html").exists():
        raise InputError(f"{folder}: no report yet; make plots GRID={grid} first")
    client = connect(results)
    experiment = client.get_experiment_by_name(grid)
    if experiment is None:
        return None
    run_id = _report_run(client, str(experiment.experiment_id), grid)
    for name in FILES:
        client.log_artifact(run_id, str(folder / name))
    for figure in sorted((folder / "figures").glob("*.png")):
        client.log_artifact(run_id, str(figure), "figures")
    client.set_terminated(run_id)
    return run_id


def _report_run(client: mlflow.MlflowClient, experiment: str, grid: str) -> str:
    found = client.search_runs([experiment], f"tags.{TAG} = '{grid}'", ViewType.ACTIVE_ONLY, 1)
    if found:
        return str(found[0].info.run_id)
    run = client.create_run(experiment, tags={TAG: grid}, run_name=f"report of {grid}")
    return str(run.info.run_id)
