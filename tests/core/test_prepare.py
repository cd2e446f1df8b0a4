"""Text to dataset, end to end on a small corpus: paths, packing, caching, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.config import DataConfig, TreeConfig
from core.dataset import PADDING, dataset_folder, read_tree_report
from core.errors import InputError
from core.identity import tree_fingerprint
from core.prepare import prepare

TOPICS = {
    "sea": "ship harbour wave sailor anchor storm tide captain reef gull",
    "kitchen": "flour butter oven sugar spoon bread onion pepper recipe dough",
    "court": "judge verdict witness lawyer statute appeal jury trial oath clerk",
    "garden": "rose soil seed hedge spade orchard blossom compost ivy fern",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 documents on four topics, each drawn from its topic's ten words."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    with path.open("w") as file:
        for i in range(240):
            topic = list(TOPICS)[i % 4]
            words = rng.choice(TOPICS[topic].split(), 60)
            file.write(json.dumps({"title": f"{topic} {i}", "text": " ".join(words)}) + "\n")
    return path


def data_config(corpus: Path) -> DataConfig:
    return DataConfig(
        corpus=(str(corpus),), vocab_size=400, seq_len=32, min_tokens=8, validation=0.1, test=0.1
    )


def test_prepares_once_and_maps_the_same(corpus: Path, tmp_path: Path) -> None:
    data, tree = data_config(corpus), TreeConfig(dimensions=8, branching=(4, 2))
    first = prepare(data, tree, tmp_path)
    folder = dataset_folder(tmp_path, tree_fingerprint(data, tree))
    written = (folder / "meta.json").stat().st_mtime_ns
    second = prepare(data, tree, tmp_path)
    assert (folder / "meta.json").stat().st_mtime_ns == written
    assert first.digest == second.digest == prepare(data, tree, tmp_path / "anew").digest
    assert first.clusters == (4, 8)


@pytest.mark.parametrize(("key", "embedded"), [("document", 1), ("prefix", 2)])
def test_every_stage_says_how_far_it_is(
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    embedded: int,
) -> None:
    """Train windows are embedded once for each of their keys."""
    monkeypatch.setattr("core.corpus.progress.WORTH_A_LINE", 0.0)
    tree = TreeConfig.model_validate({"dimensions": 8, "branching": (4, 2), "key": key})
    prepare(data_config(corpus), tree, tmp_path)
    ended = [line.split(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert {"reading text.jsonl", "fitting the embedder", "clustering level 2"} <= set(ended)
    assert ended.count("embedding train windows") == embedded
    prepare(data_config(corpus), tree, tmp_path)
    assert not capsys.readouterr().err


def test_topics_are_found_by_either_key(corpus: Path, tmp_path: Path) -> None:
    dataset = prepare(data_config(corpus), TreeConfig(dimensions=8, branching=(4,)), tmp_path)
    assert dataset.agreement[0] > 0.9
    report = read_tree_report(
        dataset_folder(
            tmp_path,
            tree_fingerprint(data_config(corpus), TreeConfig(dimensions=8, branching=(4,))),
        )
    )
    assert report is not None
    assert report.agreement == dataset.agreement
    assert sum(report.leaf_rows) == len(dataset.train.tokens_nt)
    assert report.chance_agreement[0] < 0.5


def test_arrays_fit_together(corpus: Path, tmp_path: Path) -> None:
    dataset = prepare(data_config(corpus), TreeConfig(dimensions=8, branching=(4, 2)), tmp_path)
    rows, windows = dataset.train, dataset.test
    assert rows.tokens_nt.shape == rows.segments_nt.shape == (len(rows.path_nl), 33)
    assert np.array_equal(rows.path_nl[:, 1] // 2, rows.path_nl[:, 0])
    same = rows.segments_nt[:, 1:] == rows.segments_nt[:, :-1]
    assert dataset.train_tokens == (same & (rows.segments_nt[:, 1:] != PADDING)).sum()
    assert (windows.prefix_n >= 1).all()
    assert (windows.prefix_n < windows.length_n).all()
    behind = np.arange(33) >= windows.length_n[:, None]
    assert (windows.tokens_nt[behind] == 0).all()
    assert (windows.tokens_nt[:, 0] == 0).all()  # end-of-text leads every window


def test_the_training_key_moves_training_windows_alone(corpus: Path, tmp_path: Path) -> None:
    data = data_config(corpus)
    document, prefix = (
        prepare(data, TreeConfig(dimensions=8, branching=(4, 2), prefix=0.1, key=key), tmp_path)
        for key in ("document", "prefix")
    )
    assert np.array_equal(document.test.path_document_nl, prefix.test.path_document_nl)
    assert not np.array_equal(document.train.path_nl, prefix.train.path_nl)


def test_too_many_levels_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer levels or more text"):
        prepare(data_config(corpus), TreeConfig(dimensions=8, branching=(32, 32)), tmp_path)
    assert not list((tmp_path / "trees").glob("*/meta.json"))
