"""Probes of a trained run: ranks against a slow count, routes, the sample, the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from core.config import RunConfig, Runtime
from core.corpus import fact_sample
from core.corpus.fact_counts import FactCounts
from core.corpus.fact_sample import choose
from core.corpus.facts import Fact, Probe
from core.corpus.prepare import prepare_windows
from core.generate import Codec
from core.load import Router, load_run
from core.probes import COLUMNS, ORACLE, ask, oracle_paths, probe_run
from core.subject import open_run
from tests.core.small_runs import (
    CITIES,
    ELEMENTS,
    MEMORIES,
    fact_config,
    train,
    write_corpus,
)

ATOMIC = Probe(
    "atomic-number",
    "The atomic number of {} is",
    "mentions",
    True,
    tuple(Fact((name,), str(number)) for name, number in {**ELEMENTS, "radon": 86}.items()),
)
CITY = Probe(
    "city-country",
    "{} is a city in",
    "statements",
    False,
    tuple(Fact((city,), country) for city, country in CITIES.items()),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def config(results: Path) -> RunConfig:
    training = {"tokens": 60_000, "batch_size": 4, "precision": "fp32"}
    return fact_config(write_corpus(results / "text"), train=training)


@pytest.fixture(scope="module")
def folder(results: Path, config: RunConfig) -> Path:
    return train(config, results)


@pytest.fixture(scope="module")
def frame(folder: Path, results: Path) -> pd.DataFrame:
    return probe_run(folder, Runtime(results=results), [ATOMIC, CITY])


def test_table(frame: pd.DataFrame, folder: Path) -> None:
    assert tuple(frame.columns) == COLUMNS
    pd.testing.assert_frame_equal(pd.read_csv(folder / "probes.csv"), frame, check_dtype=False)
    rows = frame.groupby(["probe", "route"]).size()
    assert rows["atomic-number", "prompt"] == rows["atomic-number", "off"] == 7
    assert rows["atomic-number", ORACLE] == 6  # nothing in the text states radon
    assert rows["city-country", ORACLE] == len(CITIES)
    assert (frame.loc[frame["subject"] == "radon", "frequency"] == 0).all()
    assert (frame["answers"] == frame["probe"].map({"atomic-number": 7, "city-country": 4})).all()
    assert frame["rank"].between(1, frame["answers"]).all() and (frame["logprob"] < 0).all()


def test_a_run_that_read_the_facts_knows_them(frame: pd.DataFrame) -> None:
    """Each fact stands 30 times or more in the text; by chance one of 4 or 7 would be first."""
    known = frame[(frame["route"] == "prompt") & (frame["frequency"] > 16)]
    assert len(known) == len(ELEMENTS) + len(CITIES)
    assert known["exact"].mean() > 0.8 and (known["rank"] == 1).mean() > 0.8


@torch.no_grad()
def test_ranks_and_logprobs_equal_a_slow_count(
    folder: Path, results: Path, config: RunConfig
) -> None:
    model = load_run(folder)
    codec = Codec.of_run(config, results / "cache")
    path_nl = np.array([[0, 1], [1, 3]], np.int32)
    answers = ask(model, codec, CITY, CITY.facts[:2], path_nl)
    for fact, path, answer in zip(CITY.facts[:2], path_nl, answers, strict=True):
        fetches = model.fetch(torch.from_numpy(path.astype(np.int64))[None])
        scores = {}
        for country in sorted(set(CITIES.values())):
            ids = [0, *codec.encode(f"{fact.subject} is a city in {country}.")]
            n = len(codec.encode(f" {country}."))
            tokens = torch.tensor(ids)[None]
            hidden = model.hidden(tokens[:, :-1], torch.zeros_like(tokens[:, :-1]), fetches)
            logprobs = torch.log_softmax(model.anchor.logits(hidden), -1)[0]
            scores[country] = sum(float(logprobs[i, ids[i]]) for i in range(-n, 0))
        right = scores[fact.answer]
        assert answer.logprob == pytest.approx(right, rel=1e-4)
        assert answer.rank == 1 + sum(score > right for score in scores.values())


def test_the_oracle_is_the_mode_leaf_of_the_stating_documents(
    results: Path, config: RunConfig
) -> None:
    router = Router.open(config.data, config.tree, results / "cache")
    windows = prepare_windows(config.data, results / "cache").split("train")
    path_nl = router.route(list(windows.key_texts()))
    documents = [(0, 1, 2, 3), (5,)]
    found = oracle_paths(documents, router, windows, config.tree)
    for stated, path in zip(documents, found, strict=True):
        leaves = [int(p[-1]) for p, d in zip(path_nl, windows.document, strict=True) if d in stated]
        most = max(leaves.count(leaf) for leaf in leaves)
        assert path[-1] == min(leaf for leaf in leaves if leaves.count(leaf) == most)
        assert path[0] == path[-1] // 2
    assert oracle_paths([], router, windows, config.tree).shape == (0, 2)


def test_the_sample_is_capped_per_bucket_and_leaves_common_words_out(
    monkeypatch: pytest.MonkeyPatch, config: RunConfig, tmp_path: Path
) -> None:
    n = 300
    facts = tuple(Fact((f"city{i}",), "x") for i in range(n))
    probe = Probe("many", "{}", "mentions", True, facts)
    counts = FactCounts([i % 4 for i in range(n)], [[]] * n, [9 * (i % 5 == 0) for i in range(n)])
    monkeypatch.setattr(fact_sample, "count_facts", lambda *_: counts)
    chosen = choose(probe, config.data, tmp_path)
    buckets = [asked.bucket for asked in chosen]
    assert {name: buckets.count(name) for name in set(buckets)} == {"0": 50, "1": 50, "2-3": 50}
    assert not any(int(asked.fact.subject[4:]) % 5 == 0 for asked in chosen)
    assert chosen == choose(probe, config.data, tmp_path)


@pytest.mark.parametrize(
    ("name", "routes"),
    [
        ("none", {"on"}),
        ("generic", {"on", "off"}),
        ("ngram", {"on", "off"}),
        ("pkm", {"on"}),  # nothing stands in the place of the FFNs when it is off
        ("moe", {"on"}),
    ],
)
def test_memories_that_no_tree_addresses_have_no_paths(
    results: Path, config: RunConfig, name: str, routes: set[str]
) -> None:
    corpus = Path(config.data.corpus[0])
    training = {"tokens": 4_000, "batch_size": 4, "precision": "fp32"}
    other = fact_config(corpus, memory=MEMORIES[name], train=training)
    folder = train(other, results)
    frame = probe_run(folder, Runtime(results=results), [CITY]).set_index("route")
    assert set(frame.index) == routes
    if "off" in routes:
        assert (frame.loc["on", "logprob"] != frame.loc["off", "logprob"].to_numpy()).all()
    model = load_run(folder)
    paths = (np.zeros((5, 2), np.int32), np.full((5, 2), 1, np.int32))
    answers = [
        ask(model, open_run(folder, Runtime(results=results)).codec, CITY, CITY.facts, path)
        for path in paths
    ]
    assert answers[0] == answers[1]  # any path is the same one
    assert [a.logprob for a in answers[0]] == frame.loc["on", "logprob"].tolist()
