"""The commands of core: their tables, their exit status, one line for bad input."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import core.forgetting
import core.probes
from core.__main__ import main
from core.checkpoint import load_weights
from core.config import RunConfig
from core.corpus.facts import Probe
from core.corpus.tokenizer import train_tokenizer
from core.identity import run_id
from core.record import read_record, to_frame, write_runs
from tests.core.posthoc.test_llama import write_llama
from tests.core.small_runs import MEMORIES, fact_config, train, write_corpus
from tests.core.test_probes import CITY

TRAINING = {"tokens": 4_000, "batch_size": 4, "precision": "fp32"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def corpus(results: Path) -> Path:
    return write_corpus(results / "text")


@pytest.fixture(scope="module")
def config(corpus: Path) -> RunConfig:
    return fact_config(corpus, train=TRAINING)


@pytest.fixture(scope="module")
def folder(config: RunConfig, results: Path) -> Path:
    return train(config, results)


@pytest.fixture(autouse=True)
def small_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(_: Path) -> list[Probe]:
        return [CITY]

    monkeypatch.setattr(core.probes, "load_probes", one)
    monkeypatch.setattr(core.forgetting, "load_probes", one)


def run(results: Path, *arguments: object) -> int:
    return main([*map(str, arguments), "--results", str(results)])


def refused(capsys: pytest.CaptureFixture[str], results: Path, *arguments: object) -> str:
    """The one line that a refused command prints."""
    assert run(results, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def write_yaml(path: Path, values: object) -> Path:
    path.write_text(yaml.safe_dump(values))
    return path


def test_train(
    config: RunConfig, folder: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_yaml(results / "run.yaml", config.model_dump(mode="json"))
    assert run(results, "train", path) == 0
    assert f"done: {folder}" in capsys.readouterr().out


def test_probe_and_block_one_run(
    results: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(fact_config(corpus, train=TRAINING, seed=1), results)
    assert run(results, "probe", folder) == 0
    assert "oracle (bound)" in capsys.readouterr().out
    assert set(pd.read_csv(folder / "probes.csv")["route"]) == {"prompt", "off", "oracle (bound)"}
    assert run(results, "block", folder, "--best", 2, "--cluster", "2:3", "--cluster", "1:0") == 0
    assert "level 2 cluster 3" in capsys.readouterr().out
    table = pd.read_csv(folder / "blocking.csv").set_index("blocking")
    assert table["blocked"].to_dict() == {
        "nothing": 0,
        "best 1/2": 0.5,
        "level 2 cluster 3": 0.25,
        "level 1 cluster 0": 0.5,
    }


def test_a_grid_gives_one_table_of_its_runs(
    config: RunConfig,
    folder: Path,
    results: Path,
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = results / "small"
    dense = train(fact_config(corpus, train=TRAINING, memory=MEMORIES["none"]), results)
    frame = to_frame([read_record(path / "record.json") for path in (folder, dense)])
    elsewhere = frame.iloc[:1].assign(run_id="0" * 12)
    failed = frame.iloc[:1].assign(run_id="1" * 12, status="failed")
    write_runs(pd.concat([frame, elsewhere, failed]), grid / "runs.csv")
    assert run(results, "probe", grid) == 0
    printed = capsys.readouterr().out
    assert "1 of 3" in printed and "000000000000 left out" in printed
    probes = pd.read_csv(grid / "probes.csv")
    ids = {run_id(config), dense.name}
    assert set(probes["run_id"]) == ids
    assert set(probes.loc[probes["run_id"] == dense.name, "route"]) == {"on"}
    assert run(results, "block", grid) == 0
    assert "memory.type none has no paths to block" in capsys.readouterr().out
    blocking = pd.read_csv(grid / "blocking.csv")
    assert set(blocking["run_id"]) == {run_id(config)}
    assert blocking["blocked"].tolist() == [0, 0.25, 0.5]
    assert (folder / "blocking.csv").read_bytes() == (grid / "blocking.csv").read_bytes()
    monkeypatch.setattr(core.probes, "probe_subject", None)  # what was asked is not asked again
    assert run(results, "probe", grid) == 0
    pd.testing.assert_frame_equal(pd.read_csv(grid / "probes.csv"), probes)


def test_merge(corpus: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {**TRAINING, "mode": "frozen", "start": {"tokens": 2_000, "lr": 1e-2}}
    one = train(fact_config(corpus, train=stages), results)
    parts = [
        train(fact_config(corpus, train={**stages, "tree_part": [c]}), results) for c in (0, 1)
    ]
    merged = results / "merged"
    assert run(results, "merge", merged, *parts) == 0
    assert "done: " in capsys.readouterr().out
    whole, found = (read_record(path / "record.json") for path in (one, merged))
    assert found.run_id == whole.run_id and found.tokens == whole.tokens
    assert found.loss_test_prefix == pytest.approx(whole.loss_test_prefix, abs=1e-4)
    weights = load_weights(merged / "model.safetensors")
    for name, tensor in load_weights(one / "model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)
    assert run(results, "probe", merged) == 0
    assert "exists; name a folder" in refused(capsys, results, "merge", merged, *parts)
    line = refused(capsys, results, "merge", results / "other", parts[0])
    assert "hold clusters [0] of level 1" in line and not (results / "other").exists()


def test_posthoc(corpus: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_llama(results / "model", vocab_size=500)
    train_tokenizer([corpus.read_text()], 500).save(str(model / "tokenizer.json"))
    like = fact_config(corpus, train=TRAINING)
    values = {
        "model": str(model),
        "widths": [2, 1],
        "test_windows": 8,
        **{name: getattr(like, name).model_dump(mode="json") for name in ("data", "tree", "train")},
    }
    path = write_yaml(results / "posthoc.yaml", values)
    assert run(results, "posthoc", path) == 0
    folder = Path(capsys.readouterr().out.split("done: ")[1].splitlines()[0])
    losses = json.loads((folder / "losses.json").read_text())
    assert set(losses) == {"loss_test_prefix", "loss_test_document", "loss_test_off"}
    assert run(results, "probe", folder) == 0
    assert set(pd.read_csv(folder / "probes.csv")["route"]) == {"prompt", "off", "oracle (bound)"}
    assert "is a post-hoc run" in refused(capsys, results, "block", folder)
    write_yaml(path, {**values, "widths": [2, 1, 1]})
    assert "3 widths for a tree of 2 levels" in refused(capsys, results, "posthoc", path)
    write_yaml(path, {**values, "model": str(results / "nowhere")})
    assert "nowhere" in refused(capsys, results, "posthoc", path)


def test_bad_input_is_one_line(
    folder: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("probe", "block"):
        assert "neither a run's folder" in refused(capsys, results, command, tmp_path)
    for words, message in (
        (["--best", 3], "1/3 of the bank"),
        (["--cluster", "root"], "give LEVEL:NUMBER, as 1:0"),
        (["--cluster", "1:9"], "the tree has clusters (2, 4)"),
    ):
        assert message in refused(capsys, results, "block", folder, *words)
    write_runs(to_frame([]), tmp_path / "runs.csv")
    assert "none of its 0 runs" in refused(capsys, results, "probe", tmp_path)
    assert "for one run" in refused(capsys, results, "block", tmp_path, "--best", 2)
    assert "no such file" in refused(capsys, results, "train", tmp_path / "absent.yaml")
    assert "no record" in refused(capsys, results, "merge", tmp_path / "m", tmp_path / "part")
    line = refused(capsys, results, "probe", folder, "--device", "abacus")
    assert "device abacus: this machine has cpu" in line


def test_results_that_cannot_be_written(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_yaml(tmp_path / "run.yaml", config.model_dump(mode="json"))
    (tmp_path / "file").touch()
    assert "file" in refused(capsys, tmp_path / "file", "train", path)
