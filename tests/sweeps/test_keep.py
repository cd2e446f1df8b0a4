"""Tables of a grid are kept where they count as done, but for runs that everyone shall train."""

from pathlib import Path

import pytest

from core.record import RunRecord, read_runs, to_frame, write_runs
from sweeps.__main__ import main
from sweeps.grid import load_grid
from sweeps.store import Store

QUICK = load_grid("quick").trials[0].run_id


@pytest.fixture
def results(tmp_path: Path) -> Path:
    runs = to_frame([RunRecord(run_id=run_id) for run_id in ("0123456789ab", QUICK)])
    write_runs(runs, tmp_path / "mine" / "runs.csv")
    (tmp_path / "mine" / "curves.csv").write_text("run_id,step,tokens,loss,lr\n")
    (tmp_path / "mine" / "report.html").write_text("drawn")
    return tmp_path


def test_runs_are_kept_apart_by_who_shall_train_them(results: Path) -> None:
    assert main(["keep", "mine", "--results", str(results)]) == 0
    kept = results / "reference" / "mine"
    assert {path.name for path in kept.iterdir()} == {
        "runs.csv",
        "records.csv",
        "columns.csv",
        "curves.csv",
    }
    assert read_runs(kept / "runs.csv")["run_id"].tolist() == ["0123456789ab"]
    assert read_runs(kept / "records.csv")["run_id"].tolist() == [QUICK]
    (results / "mine" / "runs.csv").unlink()
    store = Store(results)
    assert store.record("0123456789ab") is not None and store.record(QUICK) is None


def test_what_is_kept_again_replaces_what_was(results: Path) -> None:
    main(["keep", "mine", "--results", str(results)])
    write_runs(to_frame([RunRecord(run_id=QUICK)]), results / "mine" / "runs.csv")
    assert main(["keep", "mine", "--results", str(results)]) == 0
    assert not (results / "reference" / "mine" / "runs.csv").exists()


def test_a_grid_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keep", "none", "--results", str(tmp_path)]) == 2
    assert "no runs yet; make sweep GRID=none first" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
