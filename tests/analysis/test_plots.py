"""`make plots` on the kept grid: every figure, its data beside it, the same bytes on any CPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from tests.analysis.make_grid import FOLDER, TRUTH

FIGURES = {
    "loss_against_n",
    "loss_against_d",
    "multiplier_by_arm",
    "gain_fetched",
    "gain_bank",
    "gain_tokens",
    "gain_placement",
    "gain_type",
    "isoflop",
    "envelope",
    "frontier",
    "profiles",
    "residuals",
    "answer_loss_by_frequency",
    "recall_by_frequency",
    "blocking_curve",
    "loss_by_key",
    "loss_curves",
}


# Makes numpy, BLAS and the C library take the paths of an older CPU, which round otherwise.
OLDER_CPU = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Nehalem",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA",
}


def plots(results: Path) -> Path:
    shutil.copytree(FOLDER, results / "grid")
    assert main(["plots", "grid", "--results", str(results)]) == 0
    return results / "grid"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plots(tmp_path_factory.mktemp("first"))


def data(drawn: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(drawn / "figures" / f"{name}.csv", comment="#")


def test_every_figure_is_there_and_every_file_the_same_on_another_cpu(
    drawn: Path, tmp_path: Path
) -> None:
    assert {path.stem for path in (drawn / "figures").glob("*.png")} == FIGURES
    shutil.copytree(FOLDER, tmp_path / "grid")
    command = ["-m", "analysis", "plots", "grid", "--results", str(tmp_path)]
    subprocess.run([sys.executable, *command], env={**os.environ, **OLDER_CPU}, check=True)
    one, two = contents(drawn), contents(tmp_path / "grid")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def contents(drawn: Path) -> dict[str, bytes]:
    """Every file below by its name, but for where it lies, which stands in figures and page."""
    place = str(drawn.parent).encode()
    files = [path for path in drawn.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(drawn)): path.read_bytes().replace(place, b"RESULTS") for path in files
    }


def test_fits_and_bands_stand_beside_the_runs(drawn: Path) -> None:
    for name in ("loss_against_n", "loss_against_d"):
        lines = data(drawn, name)
        fits = lines[(lines["kind"] == "fit") & lines["arm"].isin(["dense", "ffn"])]
        assert len(fits) >= 120
        assert (fits["low"] <= fits["loss"]).all()
        assert (fits["loss"] <= fits["high"]).all()
    assert data(drawn, "loss_against_n").query("kind == 'run'")["seed"].nunique() == 3


def test_multipliers_are_those_of_the_law(drawn: Path) -> None:
    table = pd.read_csv(drawn / "multipliers.csv").query("arm == 'ffn' and key == 'prefix'")
    m, n = table["n_fetched"], table["n_anchor"]
    worth = TRUTH["kappa"] * (table["n_bank"] / m) ** TRUTH["omega"]
    truth = (n + worth * m) / (n + m)
    runtime = table["measure"] == "n_runtime"
    np.testing.assert_allclose(table["multiplier"][runtime], truth[runtime], rtol=0.05)


def test_iso_flop_minima_are_where_the_law_has_them(drawn: Path) -> None:
    minima = pd.read_csv(drawn / "minima.csv")
    ratio = TRUTH["A"] / TRUTH["B"]  # at equal exponents N / D = (A / B)^(1 / alpha)
    best = np.sqrt(minima["flops"] / 6 * ratio ** (1 / TRUTH["alpha"]))
    assert (minima["status"] == "found").all()
    np.testing.assert_allclose(minima["size"], best, rtol=0.1)


def test_only_what_differs_in_placement_or_type_alone_is_compared(drawn: Path) -> None:
    placed, typed = data(drawn, "gain_placement"), data(drawn, "gain_type")
    assert set(placed["arm"]) == {"ffn", "ffn-first", "ffn-last"}
    assert set(typed["arm"]) == {"ffn", "generic", "kv", "lora-ffn"}


def test_the_page_says_what_it_must(drawn: Path) -> None:
    page = (drawn / "report.html").read_text()
    for words in (
        "What is a memory worth, by size, bank, placement, type and tokens?",
        "Best split of the largest budget",
        "Compute-optimal size",
        "shuffled path minus document path",
        "Random tree",
        "long tail",
        "no dense equivalent: fewer than two dense sizes were asked with its seeds",
        "loss is NaN",
        "disk is full",
        "alpha from",
        "make sweep GRID=grid",
    ):
        assert words in page
    assert "memory-parameters predicts better" in page or "the data cannot tell" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_controls_tell_a_random_tree_from_one_of_meaning(drawn: Path) -> None:
    controls = pd.read_csv(drawn / "controls.csv")
    shuffled = controls[controls["against"] == "shuffled path minus prefix path"]
    assert shuffled.loc[shuffled["arm"] == "ffn", "low"].min() > 0.04
    assert shuffled.loc[shuffled["arm"] == "ffn-random", "difference"].abs().max() < 1e-3
    between = pd.read_csv(drawn / "differences.csv").query("key == 'prefix'")
    against = between.set_index(["arm", "against"])
    random = against.loc[("ffn-random", "generic")]
    assert (random["difference"].abs() < random["detectable"]).all()
    assert (against.loc[("ffn", "ffn-random"), "high"] < 0).all()
