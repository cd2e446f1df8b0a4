"""A run that finds the disk full fails with that cause, alone, and the next sweep completes it."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.record import read_runs

# The disk holds the runs when the sweep looks; while Ray starts, another fills it, and a bank of
# 1.2M parameters does not fit beside the dense runs any more.
STORY = """
mount -t tmpfs -o size=160m none "$2"
{
    while [ ! -e "$2/mlflow.db" ]; do sleep 0.1; done
    free=$(df --output=avail -B1 "$2" | tail -1)
    head -c $((free - 4000000)) /dev/zero > "$2/filler"
} &
"$1" -m sweeps run "$3" --results "$2" > "$4/first.txt" 2>&1 && exit 1
wait
rm "$2/filler"
cp -r "$2" "$4/first"
"$1" -m sweeps run "$3" --results "$2" > "$4/second.txt" 2>&1
cp -r "$2" "$4/second"
"""


def test_a_full_disk(
    private: list[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    tiny.write_text(tiny.read_text().replace("widths: [2, 1]", "widths: [2000, 2000]"))
    results, kept = tmp_path / "results", tmp_path / "kept"
    results.mkdir()
    kept.mkdir()
    arguments = [sys.executable, str(results), str(tiny), str(kept)]
    done = subprocess.run([*private, "sh", "-exc", STORY, "sh", *arguments], check=False)
    printed = [path.read_text() for path in sorted(kept.glob("*.txt"))]
    assert done.returncode == 0, printed
    assert "No space left on device" in printed[0]
    first, second = (read_runs(kept / name / "tiny" / "runs.csv") for name in ("first", "second"))
    assert list(first["status"]) == ["done", "done", "failed", "failed"]
    assert not list((kept / "first").glob("runs/*/*.partial"))
    assert list(second["status"]) == ["done"] * 4
    assert second[:2].equals(first[:2])
