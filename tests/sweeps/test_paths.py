"""The fastest paths are measured once a sweep, and kept."""

from pathlib import Path

import pytest

from core.config import Paths
from core.errors import InputError
from sweeps.paths import kept_paths


def test_measured_once(tmp_path: Path) -> None:
    file = tmp_path / "grid" / "paths.yaml"
    found = Paths(precision="fp32", attention="fused")
    assert kept_paths(file, lambda: found) == found
    assert kept_paths(file, lambda: pytest.fail("measured again")) == found


def test_what_is_no_path_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "paths.yaml"
    file.write_text("attention: flash")
    with pytest.raises(InputError, match="attention"):
        kept_paths(file, Paths)
