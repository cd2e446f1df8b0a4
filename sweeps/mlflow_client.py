"""Where MLflow keeps the runs of a results folder."""

import os
from pathlib import Path

import mlflow

from core.errors import InputError
from core.writing import whole_file
from sweeps.store import tracking_uri


def connect(results: Path) -> mlflow.MlflowClient:
    """To MLFLOW_TRACKING_URI, or to the folder's own database, which is made where there is none.

    Raises InputError for an address that MLflow does not understand.
    """
    database, uri = results.absolute() / "mlflow.db", tracking_uri(results)
    if not os.environ.get("MLFLOW_TRACKING_URI") and not _holds_anything(database):
        _make(database)
    try:
        return mlflow.MlflowClient(uri)
    except mlflow.MlflowException as error:
        raise InputError(f"MLFLOW_TRACKING_URI {uri}: {error}; give another") from None


def _holds_anything(database: Path) -> bool:
    """Whoever opens a database that is not there yet leaves an empty file."""
    return database.exists() and database.stat().st_size > 0


def _make(database: Path) -> None:
    """Whole or not at all: MLflow cannot go on with what a killed process left half made."""
    with whole_file(database) as partial:
        for left in database.parent.glob(f"{partial.name}*"):
            left.unlink()
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments()
