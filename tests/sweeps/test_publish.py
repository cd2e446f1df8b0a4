"""The report stands beside the runs in MLflow, once."""

from pathlib import Path

import mlflow
import pytest

from core.errors import InputError
from sweeps.__main__ import main
from sweeps.publish import publish
from sweeps.store import tracking_uri


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    figures = tmp_path / "results" / "quick" / "figures"
    figures.mkdir(parents=True)
    for path in ("report.html", "runs.csv", "figures/loss.png", "figures/loss.csv"):
        (figures.parent / path).write_text(path)
    return tmp_path / "results"


def client_of(results: Path) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient(tracking_uri(results))
    client.create_experiment("quick", (results / "artifacts").as_uri())
    return client


def test_a_report_is_kept_once_and_renewed(results: Path) -> None:
    client = client_of(results)
    first = publish("quick", results)
    (results / "quick" / "report.html").write_text("drawn again")
    assert main(["publish", "quick", "--results", str(results)]) == 0
    [run] = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    assert (run.info.run_id, run.info.run_name) == (first, "report of quick")
    assert run.info.status == "FINISHED"
    kept = results / "artifacts" / first / "artifacts"
    files = {str(path.relative_to(kept)): path.read_text() for path in kept.rglob("*.*")}
    assert files == {
        "report.html": "drawn again",
        "runs.csv": "runs.csv",
        "figures/loss.png": "figures/loss.png",
    }


def test_without_runs_in_mlflow_nothing_is_made(results: Path) -> None:
    assert main(["publish", "quick", "--results", str(results)]) == 0
    assert not (results / "mlflow.db").exists()
    client_of(results)
    (results / "other").mkdir()
    (results / "other" / "report.html").touch()
    assert publish("other", results) is None


def test_a_report_that_was_not_drawn(results: Path) -> None:
    with pytest.raises(InputError, match=r"other: no report yet; make plots GRID=other first"):
        publish("other", results)
