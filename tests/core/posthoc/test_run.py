"""A post-hoc run from text to losses, and back from its folder."""

import json
from pathlib import Path

import pytest
import torch

from core.checkpoint import load_weights, save_weights
from core.config import Runtime
from core.corpus.tokenizer import train_tokenizer
from core.errors import InputError
from core.posthoc.run import (
    PostHocConfig,
    load_posthoc_config,
    open_posthoc,
    posthoc_id,
    train_posthoc,
)
from core.probes import ORACLE, probe_subject
from tests.core.posthoc.test_llama import write_llama
from tests.core.small_runs import fact_config, write_corpus
from tests.core.test_probes import CITY


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def config(results: Path) -> PostHocConfig:
    """A random model, whose tokenizer is not that of the corpus' windows."""
    corpus = write_corpus(results / "text")
    model = write_llama(results / "model", vocab_size=500)
    train_tokenizer([corpus.read_text()], 500).save(str(model / "tokenizer.json"))
    like = fact_config(corpus, train={"tokens": 40_000, "batch_size": 8, "lr": 2e-2})
    return PostHocConfig(
        model=str(model),
        widths=(8, 4),
        data=like.data,
        tree=like.tree,
        train=like.train,
        test_windows=30,
    )


@pytest.fixture(scope="module")
def folder(results: Path, config: PostHocConfig) -> Path:
    folder = results / "posthoc"
    losses = train_posthoc(config, Runtime(results=results), folder, lambda *_: None)
    assert json.loads((folder / "losses.json").read_text()) == losses
    return folder


def test_the_bank_lowers_the_loss(folder: Path) -> None:
    losses = json.loads((folder / "losses.json").read_text())
    assert losses["loss_test_document"] < losses["loss_test_off"] - 0.5
    assert losses["loss_test_prefix"] < losses["loss_test_off"] - 0.5


def test_comes_back_as_it_was(folder: Path, results: Path, config: PostHocConfig) -> None:
    assert load_posthoc_config(folder / "config.yaml") == config
    subject = open_posthoc(folder, Runtime(results=results))
    saved = load_weights(folder / "bank.safetensors")
    state = subject.model.bank.state()  # type: ignore[attr-defined]
    assert saved.keys() == {"0.rows", "1.rows"}
    assert all(torch.equal(state[name], tensor) for name, tensor in saved.items())


def test_a_generic_block_is_one_for_all(folder: Path, results: Path, config: PostHocConfig) -> None:
    generic, runtime = config.model_copy(update={"memory": "generic"}), Runtime(results=results)
    losses = train_posthoc(generic, runtime, results / "generic", lambda *_: None)
    assert losses["loss_test_prefix"] == losses["loss_test_document"]
    assert losses["loss_test_prefix"] < losses["loss_test_off"] - 0.5
    rows = load_weights(results / "generic" / "bank.safetensors")
    [(name, rows_cn)] = rows.items()
    of_tree = load_weights(folder / "bank.safetensors")
    assert name == "0.rows" and len(rows_cn) == 1
    assert rows_cn.shape[1] == sum(other.shape[1] for other in of_tree.values())
    subject = open_posthoc(results / "generic", runtime)
    frame = probe_subject(subject, results / "cache", [CITY])
    assert frame.groupby("route").size().to_dict() == {"off": 5, "on": 5}
    assert posthoc_id(generic, results / "cache") != posthoc_id(config, results / "cache")


def test_it_can_be_asked_for_facts(folder: Path, results: Path) -> None:
    subject = open_posthoc(folder, Runtime(results=results))
    frame = probe_subject(subject, results / "cache", [CITY])
    assert frame.groupby("route").size().to_dict() == {"off": 5, ORACLE: 5, "prompt": 5}
    mean = frame.groupby("route")["logprob"].mean()
    assert mean["prompt"] > mean["off"]


def test_the_id_is_of_contents(config: PostHocConfig, results: Path, tmp_path: Path) -> None:
    cache = results / "cache"
    same = write_llama(tmp_path / "copy", vocab_size=500)
    other = write_llama(tmp_path / "other", vocab_size=501)
    found = posthoc_id(config, cache)
    assert posthoc_id(config.model_copy(update={"model": str(same)}), cache) == found
    assert posthoc_id(config.model_copy(update={"model": str(other)}), cache) != found
    assert posthoc_id(config.model_copy(update={"seed": 1}), cache) != found


def test_another_bank_is_refused(folder: Path, results: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text())
    rows = load_weights(folder / "bank.safetensors")
    save_weights(tmp_path / "bank.safetensors", {"0.rows": rows["0.rows"]}, {})
    with pytest.raises(InputError, match="its blocks are not those"):
        open_posthoc(tmp_path, Runtime(results=results))
