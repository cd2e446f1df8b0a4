"""`python -m analysis fit`, plan and choose on anyone's file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.memory_laws import LAWS
from tests.analysis.synthetic import DATA, HOFFMANN, TRUTHS, spread

OLMO = DATA / "bhagia_2024_olmo_ladder.csv"


def table(tmp_path: Path, noise: float = 0.01) -> Path:
    x = spread(40)
    law = LAWS["chinchilla"]
    y = law.curve(HOFFMANN, x) * np.exp(np.random.default_rng(0).normal(0, noise, 40))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"N": x["N"], "D": x["D"], "loss": y, "kind": "a"}).to_csv(path, index=False)
    return path


def run(path: Path, out: Path, *more: str) -> int:
    return main(["fit", str(path), "--law", "chinchilla", "--out", str(out), *more])


def test_fit_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--where", "mode=='train'", "--y", "c4_en_ce", "--predict", str(OLMO)]
    assert run(OLMO, tmp_path, *where) == 0
    said = capsys.readouterr().out
    written = json.loads((tmp_path / "fit.json").read_text())
    assert written["law"] == "chinchilla"
    assert written["parameters"]["alpha"] == pytest.approx(0.103603, rel=1e-4)
    assert written["objective"] == pytest.approx(3.299857e-5, rel=1e-6)
    assert (written["status"], written["n"], written["starts"]) == ("converged", 16, 256)
    assert set(written["intervals"]) == set(written["parameters"])
    assert "status    converged" in said
    assert (tmp_path / "fit.png").stat().st_size > 10_000
    predicted = pd.read_csv(tmp_path / "predictions.csv")
    assert predicted["predicted"].iloc[-1] == pytest.approx(2.34438731, rel=1e-4)
    assert (predicted["low"] < predicted["predicted"]).all()
    assert (predicted["predicted"] < predicted["high"]).all()


def test_json_lines_and_expressions(tmp_path: Path) -> None:
    path = table(tmp_path)
    lines = tmp_path / "runs.jsonl"
    pd.read_csv(path).to_json(lines, orient="records", lines=True)
    assert run(path, tmp_path / "a") == 0
    assert run(lines, tmp_path / "b", "--x", "N*2/2,D") == 0
    one, two = (json.loads((tmp_path / k / "fit.json").read_text()) for k in "ab")
    assert one["parameters"] == pytest.approx(two["parameters"], rel=1e-6)


def test_products_of_whole_numbers_do_not_overflow(tmp_path: Path) -> None:
    assert main(
        ["fit", str(OLMO), "--law", "power", "--x", "6*N*D", "--y", "c4_en_ce"]
        + ["--out", str(tmp_path)]
    ) in (0, 3)
    assert json.loads((tmp_path / "fit.json").read_text())["parameters"]["p"] < 0


def test_a_warning_status_ends_with_3(tmp_path: Path) -> None:
    assert run(table(tmp_path), tmp_path, "--where", "N > 9e9") == 3
    assert json.loads((tmp_path / "fit.json").read_text())["parameters"]["E"] is None
    assert not (tmp_path / "fit.png").exists()


def test_diverged_runs_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path)
    frame = pd.read_csv(path).assign(status="done")
    bad = frame.head(2).assign(status="diverged", loss=float("nan"))
    pd.concat([frame, bad]).to_csv(path, index=False)
    assert run(path, tmp_path) == 0
    assert "left out: 2 runs with status 'diverged'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--x", "N"], "takes 2 inputs"),
        (["--x", "N,missing"], "neither there nor an expression"),
        (["--x", "N,kind"], "holds text"),
        (["--where", "N >"], "cannot be evaluated"),
        (["--where", "N < 0"], "no rows"),
        (["--objective", "huber"], "is unknown"),
        (["--delta", "-1"], "need delta > 0"),
        (["--y", "N - 1e10"], "must be positive"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], word: str
) -> None:
    assert run(table(tmp_path), tmp_path / "out", *more) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert word in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing.csv", "empty.csv", "broken.jsonl"])
def test_a_file_that_is_no_table(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "broken.jsonl").write_text("{")
    assert run(tmp_path / name, tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_status_that_keeps_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path)
    frame = pd.read_csv(path)
    frame.assign(status="Finished").to_csv(path, index=False)
    assert run(path, tmp_path / "a") == 0
    frame.assign(status="crashed").to_csv(path, index=False)
    assert run(path, tmp_path / "b") == 2
    assert "40 runs with status 'crashed'; kept are" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_sizes_without_a_prediction_are_refused(
    tmp_path: Path, bad: float, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    pd.DataFrame({"N": [1e8, bad], "D": [1e9, 1e9]}).to_csv(other, index=False)
    assert run(table(tmp_path), tmp_path / "out", "--predict", str(other)) == 2
    assert "in row 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path)
    assert run(path, path) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_flat_profiles_are_said_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twelve sizes that bend down: the floor E may be anything from nought up."""
    n = np.geomspace(1e5, 1e8, 12)
    path = tmp_path / "bent.csv"
    y = 30 / n**0.1 * np.exp(np.random.default_rng(0).normal(0, 0.02, 12))
    pd.DataFrame({"N": n, "loss": y}).to_csv(path, index=False)
    main(["fit", str(path), "--law", "saturating", "--x", "N", "--out", str(tmp_path)])
    assert "E: flat profile, no limit below" in capsys.readouterr().out
    written = json.loads((tmp_path / "fit.json").read_text())
    assert written["profiles"]["E"]["no limit"].startswith("below")
    assert (tmp_path / "profiles.png").exists()


def memory_table(tmp_path: Path) -> Path:
    x, law = spread(), LAWS["memory-parameters"]
    y = law.curve(TRUTHS[law.name], x) * np.exp(np.random.default_rng(0).normal(0, 1e-3, 80))
    path = tmp_path / "memory.csv"
    pd.DataFrame({**x, "loss": y}).to_csv(path, index=False)
    return path


def test_plan_and_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(memory_table(tmp_path))
    limits = ["--flops", "1e20", "--ram", "2e9", "--flash", "5e10", "--resamples", "50"]
    x = ["--x", "N,D,M,W"]
    assert main(["plan", path, "--law", "memory-parameters", *x, *limits]) in (0, 3)
    assert "plan\n  N " in capsys.readouterr().out
    names = "memory-parameters,memory-additive,memory-data"
    assert main(["choose", path, "--laws", names, *x]) == 0
    assert "memory-parameters" in capsys.readouterr().out.splitlines()[1]
