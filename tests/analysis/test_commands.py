"""The commands from the outside: what they write, what they say, how they end."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.runs import load_runs
from analysis.tune import at_best_rates, tune, varies_rates
from core.record import RunRecord, Status, to_frame, write_runs


def test_plots_twice_gives_the_same_bytes(
    tmp_path: Path, write_grid: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_grid(tmp_path / name) for name in ("one", "two"))
    for results in (first, second):
        assert main(["plots", "quick", "--results", str(results)]) == 0
    assert "lost ffn 4x64 diverged loss is NaN" in capsys.readouterr().out
    pictures = sorted((first / "quick" / "figures").glob("*.png"))
    assert {p.stem for p in pictures} >= {"loss_against_n", "loss_by_key", "loss_curves"}
    for picture in pictures:
        assert picture.read_bytes() == (second / "quick" / "figures" / picture.name).read_bytes()
        assert (
            picture.with_suffix(".csv").read_text().startswith("# python -m analysis plots quick")
        )
    page = (first / "quick" / "report.html").read_text()
    assert "What is a memory worth? Three arms." in page
    assert "loss is NaN" in page
    assert "http" not in page.replace("http://www.w3.org", "")  # opens without a network


@pytest.mark.parametrize("arguments", [["plots", "none"], ["tune", "none", "--out", "t.csv"]])
def test_a_grid_without_runs_is_refused(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no runs of grid 'none'")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def rates(lr: float, memory_lr: float, best_lr: float, best_memory: float) -> RunRecord:
    loss = 4 + np.log(lr / best_lr) ** 2
    if not np.isnan(memory_lr):
        loss += np.log(memory_lr / best_memory) ** 2
    kind = "none" if np.isnan(memory_lr) else "ffn"
    return RunRecord(
        run_id=f"{kind}{lr}{memory_lr}",
        arm="dense" if kind == "none" else "ffn",
        memory_type=kind,
        anchor="4x64",
        n_anchor=1000,
        token_budget=10,
        tokens=9,
        lr=lr,
        memory_lr=memory_lr,
        loss_validation_prefix=loss,
        loss_test_prefix=-loss,  # would choose the worst
    )


def test_tune_finds_the_best_rates_and_says_where_they_are_at_an_edge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lrs, nan = (1e-3, 3e-3, 1e-2), float("nan")
    records = [rates(lr, nan, 1e-2, nan) for lr in lrs]
    records += [rates(lr, m, 3e-3, 3e-3) for lr in lrs for m in lrs]
    write_runs(to_frame(records), tmp_path / "lr" / "runs.csv")
    out = tmp_path / "table.csv"
    assert main(["tune", "lr", "--out", str(out), "--results", str(tmp_path)]) == 0
    table = pd.read_csv(out).set_index("arm")
    assert table.loc["dense", "lr"] == 1e-2
    assert not table.loc["dense", "lr_inside"]
    assert table.loc["dense", "memory_lr_inside"]
    assert (table["tokens"] == 10).all()
    assert (table.loc["ffn", ["lr", "memory_lr"]] == 3e-3).all()
    assert table.loc["ffn", ["lr_inside", "memory_lr_inside"]].all()
    assert "dense 4x64: the best lr, 0.01, is at the edge" in capsys.readouterr().err


def test_tuning_averages_over_seeds() -> None:
    frame = to_frame([rates(lr, float("nan"), 3e-3, 1.0) for lr in (1e-3, 3e-3, 1e-2)] * 2)
    frame.loc[0, "loss_validation_prefix"] = 0.5  # one lucky seed at a poor rate
    frame.loc[3, "loss_validation_prefix"] = 9.0
    assert tune(frame)["lr"].item() == 3e-3


def test_a_rate_that_was_stopped_early_bounds_the_best_and_is_never_it(tmp_path: Path) -> None:
    lrs, nan = (1e-3, 3e-3, 1e-2), float("nan")
    records = [rates(lr, nan, 3e-3, nan) for lr in lrs]
    stopped = replace(records[0], status=Status.STOPPED, loss_validation_prefix=nan, run_id="slow")
    write_runs(to_frame([stopped, *records[1:]]), tmp_path / "lr" / "runs.csv")
    runs = load_runs(tmp_path, "lr")
    best = tune(runs.tried).iloc[0]
    assert (best["lr"], best["lr_inside"], best["runs"]) == (3e-3, True, 2)
    assert runs.excluded["run_id"].tolist() == ["slow"]
    write_runs(to_frame([*records[:2], replace(stopped, lr=1e-2)]), tmp_path / "lr" / "runs.csv")
    assert tune(load_runs(tmp_path, "lr").tried)["lr_inside"].item()
    assert tune(load_runs(tmp_path, "lr").done)["lr_inside"].item() is False


def test_arms_are_compared_at_their_best_rates() -> None:
    """The rate that is best on validation is the worst on test here, and is taken all the same."""
    frame = to_frame([rates(lr, float("nan"), 3e-3, 1.0) for lr in (1e-3, 3e-3, 1e-2)])
    assert varies_rates(frame)
    best = at_best_rates(frame)
    assert best["lr"].tolist() == [3e-3]
    assert not varies_rates(best)
    assert at_best_rates(best) is best
