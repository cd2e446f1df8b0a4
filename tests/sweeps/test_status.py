"""Where a grid stands and what it would cost, for people and for programs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from core.accounting import count_parameters, training_flops_per_token
from core.config import Runtime
from core.dataset import dataset_folder
from core.identity import tree_fingerprint
from sweeps.__main__ import main
from sweeps.grid import load_grid
from sweeps.plan import describe_plan, show_plan
from sweeps.status import describe_status, estimate, standings
from sweeps.store import Store
from tests.sweeps.test_store import finish, record_of


def test_every_state_is_told_apart(tiny: Path, tmp_path: Path) -> None:
    grid, store = load_grid(str(tiny), seeds=3), Store(tmp_path / "results")
    done, diverged, failed, running, interrupted, _ = grid.trials
    finish(store, done)
    finish(store, diverged, status="diverged", cause="loss nan")
    store.write_failure(failed, "OSError: disk full")
    (store.run_folder(interrupted.run_id) / "checkpoints").mkdir(parents=True)
    store.run_folder(running.run_id).mkdir()
    with FileLock(store.run_folder(running.run_id) / "lock"):
        states = [s.state for s in standings(grid, store)]
    assert states == ["done", "diverged", "failed", "running", "interrupted", "to do"]
    described = describe_status(grid, store)
    assert described["counts"]["running"] == 0  # the lock is free: it was killed before it saved
    assert described["runs"][2]["cause"] == "OSError: disk full"


def test_time_left_follows_measured_speed(tiny: Path, tmp_path: Path) -> None:
    grid, store = load_grid(str(tiny)), Store(tmp_path / "results")
    flops = [training_flops_per_token(t.config) * t.config.train.tokens for t in grid.trials]
    finish(store, grid.trials[0], train_flops=flops[0], wall_seconds=10.0)
    seconds, basis = estimate(standings(grid, store), slots=1)
    assert seconds == pytest.approx(10 * sum(flops[1:]) / flops[0])
    assert "this grid" in basis
    many, _ = estimate(standings(grid, store), slots=100)
    assert many == pytest.approx(10 * max(flops[1:]) / flops[0])


def test_plan_prices_every_run(tiny: Path, tmp_path: Path) -> None:
    grid = load_grid(str(tiny))
    plan = describe_plan(grid, Store(tmp_path / "results"))
    ffn = plan["runs"][2]
    counts = count_parameters(grid.trials[2].config)
    assert (ffn["n_anchor"], ffn["n_fetched"], ffn["n_bank"]) == (
        counts.anchor,
        counts.fetched,
        counts.bank,
    )
    block = 3 * 2 * 16 * 1  # 3 l d r of the deepest level
    assert ffn["tokens_per_block_parameter"][-1] == pytest.approx(20_000 / 4 / block)
    assert plan["runs"][0]["tokens_per_block_parameter"] == []
    assert [tree["report"] for tree in plan["trees"]] == [None]  # nothing is prepared


def test_plan_says_how_well_a_prepared_tree_routes(tiny: Path, tmp_path: Path) -> None:
    grid, store = load_grid(str(tiny)), Store(tmp_path / "results")
    config = grid.trials[0].config
    cache = Runtime(results=store.results).cache
    folder = dataset_folder(cache, tree_fingerprint(config.data, config.tree))
    folder.mkdir(parents=True)
    report = {"leaf_rows": [4, 8, 20], "agreement": [0.75], "chance_agreement": [0.5]}
    (folder / "meta.json").write_text(json.dumps(report | {"clusters": [3]}))
    shown = show_plan(describe_plan(grid, store))
    assert "3 leaves, smallest / median / largest 4 / 8 / 20 training rows" in shown
    assert "0.75 of test windows (by chance 0.50)" in shown
    described = describe_plan(grid, store)
    described["trees"][0]["embedder"] = "random"
    assert "0.75 of test windows (by construction)" in show_plan(described)


@pytest.mark.parametrize("command", ["status", "dry-run"])
def test_commands_print_json_and_write_nothing(
    command: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    assert main([command, str(tiny), "--results", str(results), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 4
    assert not results.exists()


def test_status_as_text(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tiny), "--results", str(tmp_path / "results")]) == 0
    assert "Does the path from text to table hold?" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_dry_run_calibrates_once_and_says_so(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([2e9])  # a second calibration would find none
    monkeypatch.setattr("core.calibrate.measure_rate", lambda config, runtime: next(rates))
    results = tmp_path / "results"
    arguments = ["dry-run", str(tiny), "--results", str(results)]
    for _ in range(2):
        assert main(arguments) == 0
        assert "from a calibration of 2.0e+09 FLOP/s" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert "a calibration" in json.loads(capsys.readouterr().out)["estimated_from"]
    files = [path.name for path in results.rglob("*") if path.is_file()]
    assert files == ["calibration.json"]
    grid, store = load_grid(str(tiny)), Store(results)
    finish(store, grid.trials[0], train_flops=1e9, wall_seconds=1.0)
    assert "runs of this grid" in describe_plan(grid, store, measure=True)["estimated_from"]


HEAVY = """
import sys
from sweeps.__main__ import main
assert main(sys.argv[1:]) == 0
print([name for name in ("torch", "ray", "mlflow") if name in sys.modules])
"""


@pytest.mark.parametrize("command", ["run", "status", "dry-run"])
def test_a_finished_grid_needs_nothing_heavy(command: str, tiny: Path, tmp_path: Path) -> None:
    grid, store = load_grid(str(tiny)), Store(tmp_path / "results")
    for trial in grid.trials:
        finish(store, trial)
        store.mark_delivered(record_of(trial))
    (store.results / "mlflow.db").touch()
    arguments = [command, str(tiny), "--results", str(store.results)]
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_ten_thousand_trials_are_looked_up(
    corpus: Path, write_grid: Callable[..., Path], tmp_path: Path
) -> None:
    rates = [round(1e-6 * n, 6) for n in range(1, 5001)]
    text = f"base: {{data: {{corpus: {corpus}}}, anchor: d16}}\n"
    text += f"arms: {{dense: {{axes: {{train.lr: {rates}}}}}}}\nseeds: 2\n"
    grid, store = load_grid(str(write_grid(text, "many.yaml"))), Store(tmp_path / "results")
    assert len({trial.run_id for trial in grid.trials}) == 10_000
    assert store.pending(grid) == list(grid.trials)
    assert describe_status(grid, store)["counts"]["to do"] == 10_000
