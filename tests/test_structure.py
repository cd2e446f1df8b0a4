"""Imports run one way, and what must stay light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("core", "sweeps", "analysis")
FROM_CORE = {
    "core.record",
    "core.accounting",
    "core.errors",
    "core.writing",
}  # what analysis may use


def imports(path: Path) -> set[str]:
    """Absolute module names that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


def test_core_knows_neither_sweeps_nor_analysis() -> None:
    for path in files("core"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & {"sweeps", "analysis", "ray", "mlflow", "matplotlib"}, path


def test_analysis_takes_three_modules_of_core() -> None:
    for path in files("analysis"):
        used = imports(path)
        assert not {name.split(".")[0] for name in used} & {"sweeps", "torch", "ray"}, path
        assert {name for name in used if name.split(".")[0] == "core"} <= FROM_CORE, path


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("core.config", ("torch", "pandas", "sklearn", "pyarrow")),
        ("core.accounting", ("torch", "pandas")),
        ("core.identity", ("torch", "pandas", "pyarrow", "sklearn")),
        ("core.record", ("torch",)),
        ("sweeps.status", ("torch", "ray", "mlflow")),
        ("sweeps.grid", ("torch", "ray", "mlflow")),
        ("analysis.report", ("torch", "ray", "mlflow")),
    ],
)
def test_light_modules_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    check = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_no_pickle_anywhere() -> None:
    """What is loaded cannot run code."""
    for package in PACKAGES:
        for path in files(package):
            assert not imports(path) & {"pickle", "joblib", "cloudpickle", "dill"}, path
            assert "torch.load(" not in path.read_text(), path
