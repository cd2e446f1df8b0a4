"""What a run takes, from its config alone, and what is refused for it."""

from collections import namedtuple
from pathlib import Path

import pytest

from core.accounting import count_parameters
from core.config import RunConfig, parse_config
from core.errors import InputError
from sweeps.__main__ import main
from sweeps.grid import Grid, load_grid
from sweeps.needs import disk_needed, memory_needed, refuse_what_cannot_fit, reserved
from sweeps.store import Store

GIBIBYTE = 2**30


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
    needed = sum(disk_needed(trial.config) for trial in grid.trials)
    store = Store(tmp_path / "results" / "inner")
    monkeypatch.setattr("core.device.shutil.disk_usage", lambda path: usage(0, 0, needed))
    refuse_what_cannot_fit(grid, grid.trials, store)
    monkeypatch.setattr("core.device.shutil.disk_usage", lambda path: usage(0, 0, needed - 1))
    with pytest.raises(InputError, match=r"tiny\.yaml: 4 runs need about .* of disk"):
        refuse_what_cannot_fit(grid, grid.trials, store)


def test_a_cluster_is_not_judged_by_this_machine(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.needs.memory_bytes", lambda device: 10**6)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="'dense d16 seed 0' needs about"):
        refuse_what_cannot_fit(grid, grid.trials, Store(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    refuse_what_cannot_fit(grid, grid.trials, Store(tmp_path))
