"""A run that finds the disk full fails with that cause, alone, and the next sweep completes it."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.record import read_runs
from sweeps.grid import load_grid

# The disk holds the runs when the sweep looks; where the memory runs are then written, a bank of
# 1.2M parameters has no room. Each has a disk of its own: one disk, filled while the sweep runs,
# would be full at another moment each time, and for the dense runs too.
STORY = """
python=$1 results=$2 grid=$3 kept=$4
shift 4
for run; do
    mkdir -p "$results/runs/$run"
    mount -t tmpfs -o size=4m none "$results/runs/$run"
done
"$python" -m sweeps run "$grid" --results "$results" > "$kept/first.txt" 2>&1 && exit 1
cp -r "$results" "$kept/first"
for run; do mount -o remount,size=160m "$results/runs/$run"; done
"$python" -m sweeps run "$grid" --results "$results" > "$kept/second.txt" 2>&1
cp -r "$results" "$kept/second"
"""


def test_a_full_disk(
    private: list[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    tiny.write_text(tiny.read_text().replace("widths: [2, 1]", "widths: [2000, 2000]"))
    kept = tmp_path / "kept"
    kept.mkdir()
    runs = [trial.run_id for trial in load_grid(str(tiny)).trials if trial.arm == "ffn"]
    arguments = [sys.executable, str(tmp_path / "results"), str(tiny), str(kept), *runs]
    done = subprocess.run([*private, "sh", "-exc", STORY, "sh", *arguments], check=False)
    printed = [path.read_text() for path in sorted(kept.glob("*.txt"))]
    assert done.returncode == 0, printed
    first, second = (read_runs(kept / name / "tiny" / "runs.csv") for name in ("first", "second"))
    assert list(first["status"]) == ["done", "done", "failed", "failed"], printed
    assert first["cause"][2:].str.contains("No space left on device").all()
    assert not list((kept / "first").glob("runs/*/*.partial"))
    assert list(second["status"]) == ["done"] * 4
    assert second[:2].equals(first[:2])
