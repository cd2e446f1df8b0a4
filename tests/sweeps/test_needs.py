"""What a run takes, from its config alone, and what is refused for it."""

import os
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from core.accounting import count_parameters
from core.config import RunConfig, Runtime, parse_config
from core.errors import InputError
from sweeps.__main__ import main
from sweeps.grid import Grid, load_grid
from sweeps.needs import (
    disk_kept,
    disk_needed,
    memory_needed,
    most_disk,
    refuse_what_cannot_fit,
    reserved,
)
from sweeps.store import Store

GIBIBYTE = 2**30
PAPER = """\
# Does the largest bank of arXiv 2510.02375 fit?
base:
  anchor: {{layers: 5, d_model: 128, heads: 4, head_dim: 32, ffn: 336}}
  tree: {{branching: [16, 16, 16, 10]}}
  memory: {{type: ffn, widths: [243, 243, 243, 243], moments: {moments}}}
  train: {{tokens: {tokens}}}
arms:
  ffn: {{}}
seeds: [0]
"""


@pytest.fixture
def grid(tiny: Path) -> Grid:
    return load_grid(str(tiny))


def config(**changes: object) -> RunConfig:
    return parse_config({"anchor": "d64"} | changes, "test")


def test_a_larger_bank_costs_its_moments_and_is_saved_thrice() -> None:
    small, large = (
        config(memory={"type": "ffn", "widths": [0, width], "fetched": None}) for width in (8, 16)
    )
    more = count_parameters(large).bank - count_parameters(small).bank
    fetched = count_parameters(large).fetched - count_parameters(small).fetched
    rows = 2 * 4 * min(more, fetched * large.train.batch_size)  # weight and gradient
    assert memory_needed(large) - memory_needed(small) == 12 * more + rows
    assert disk_needed(large) - disk_needed(small) == (3 * 12 + 4) * more


def test_a_bank_on_disk_takes_memory_for_what_is_fetched_and_disk_for_what_is_trained() -> None:
    wide, deep = (
        config(memory={"type": "ffn", "widths": [0, 8]}, tree={"branching": [4, leaves]})
        for leaves in (64, 4096)
    )
    assert memory_needed(deep, "disk") == memory_needed(wide, "disk") < memory_needed(wide)
    assert memory_needed(deep) - memory_needed(wide) > 12 * 200_000
    none = config(memory={"type": "none"})
    rows = disk_needed(wide, "disk") - disk_needed(none, "disk")
    assert rows == (1 + 3) * 256 * (8 + 12 * count_parameters(wide).fetched)
    assert disk_needed(none, "disk") == disk_needed(none)


def test_a_bank_larger_than_the_disk_is_refused_for_a_full_pass_alone(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paper's 21.1e9 parameters in rows of 0.47e6: the file is sparse, so a short run needs
    what it reaches; in memory it is refused at any length.
    """
    calibrated: list[Runtime] = []

    def measure_rate(config: RunConfig, runtime: Runtime) -> float:
        calibrated.append(runtime)
        return 1e10

    monkeypatch.setattr("core.calibrate.measure_rate", measure_rate)
    monkeypatch.setattr("sweeps.needs.free_bytes", lambda folder: 50 * GIBIBYTE)
    monkeypatch.setattr("sweeps.needs.memory_bytes", lambda device: 24 * GIBIBYTE)
    grid = tmp_path / "paper.yaml"
    grid.write_text(PAPER.format(tokens="1e5", moments="fp32"))
    options = ["--results", str(tmp_path / "results")]
    assert main(["dry-run", str(grid), *options, "--bank", "disk"]) == 0
    said = capsys.readouterr().out
    assert "once every block is trained its bank takes 236.4 GiB of disk" in said
    assert "21.1G" in said and calibrated[0].bank == "disk"
    planned = load_grid(str(grid)).trials[0].config
    assert memory_needed(planned, "disk") < 4 * GIBIBYTE
    assert main(["dry-run", str(grid), *options]) == 2
    assert "needs about 238.6 GiB of memory" in capsys.readouterr().err
    grid.write_text(PAPER.format(tokens="1e7", moments="bf16"))
    assert main(["dry-run", str(grid), *options, "--bank", "disk"]) == 2
    assert "need about 630.3 GiB of disk" in capsys.readouterr().err


def test_bf16_halves_what_a_bank_takes() -> None:
    memory = {"type": "ffn", "widths": [0, 8]}
    wide, narrow = (
        config(memory=memory | {"weights": kept, "moments": kept}) for kept in ("fp32", "bf16")
    )
    bank = count_parameters(wide).bank
    assert memory_needed(wide) - memory_needed(narrow) == 6 * bank
    assert disk_needed(wide) - disk_needed(narrow) == (3 * 6 + 2) * bank
    held = [disk_needed(c, "disk") - disk_needed(config(), "disk") for c in (wide, narrow)]
    assert held[0] - held[1] == (1 + 3) * 6 * bank


def test_a_memory_without_blocks_does_not_go_to_disk(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pkm = tiny.read_text().replace(
        "dense: {}", "dense: {memory: {type: pkm, keys: 8, heads: 1, top_k: 1}}"
    )
    tiny.write_text(pkm)
    given = [str(tiny), "--results", str(tmp_path / "results"), "--bank"]
    assert main(["run", *given, "disk"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tiny}: arm dense: ")
    assert "bank disk: memory.type pkm has no blocks" in said
    assert main(["dry-run", *given, "tape"]) == 2
    assert "bank = 'tape'" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_micro_batches_save_activations() -> None:
    whole, parts = config(), config(train={"accumulate": 4})
    base = memory_needed(config(train={"batch_size": 16, "accumulate": 16}))
    assert memory_needed(whole) > memory_needed(parts) > base


def test_workers_are_shared_by_runs_of_about_one_size() -> None:
    assert reserved(config(), 64 * GIBIBYTE) == reserved(config(anchor="d48"), 64 * GIBIBYTE)
    assert reserved(config(), 64 * GIBIBYTE) >= memory_needed(config())
    assert reserved(config(), 1000) == 1000


def test_runs_that_the_disk_cannot_hold_are_refused(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    needed = most_disk(grid, grid.trials)
    store = Store(tmp_path / "results" / "inner")
    monkeypatch.setattr("core.device.shutil.disk_usage", lambda path: usage(0, 0, needed))
    refuse_what_cannot_fit(grid, grid.trials, store)
    monkeypatch.setattr("core.device.shutil.disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(InputError, match=r"tiny\.yaml: 4 runs need about .* of disk"):
        refuse_what_cannot_fit(grid, grid.trials, store)


def test_a_finished_run_frees_its_checkpoints_and_a_stopped_one_does_not(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of a sweep the largest runs, one a core, still train."""
    training = sorted(disk_needed(trial.config) for trial in grid.trials)
    kept = sorted(disk_kept(trial.config) for trial in grid.trials)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert most_disk(grid, grid.trials) == sum(kept[:-1]) + training[-1]
    stopping = replace(grid, early_stopping=frozenset(trial.arm for trial in grid.trials))
    assert most_disk(stopping, grid.trials) == sum(training)
    monkeypatch.setattr(os, "cpu_count", lambda: len(grid.trials) + 1)
    assert most_disk(grid, grid.trials) == sum(training)


def test_a_cluster_is_not_judged_by_this_machine(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.needs.memory_bytes", lambda device: 10**6)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="'dense d16 seed 0' needs about"):
        refuse_what_cannot_fit(grid, grid.trials, Store(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    refuse_what_cannot_fit(grid, grid.trials, Store(tmp_path))
