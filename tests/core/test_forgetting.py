"""What a blocked part costs is measured on the texts that it served; the others keep theirs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from core.blocking import block_best, block_subtree
from core.config import RunConfig, Runtime
from core.errors import InputError
from core.forgetting import block_facts, block_losses, block_run, summarise
from core.subject import Subject, open_run
from tests.core.small_runs import MEMORIES, fact_config, train, write_corpus
from tests.core.test_probes import CITY


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime(results=tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def config(runtime: Runtime) -> RunConfig:
    training = {"tokens": 20_000, "batch_size": 4, "precision": "fp32"}
    held_out = {"validation_windows": 8, "test_windows": 30}
    return fact_config(write_corpus(runtime.results / "text"), train=training, evaluate=held_out)


@pytest.fixture(scope="module")
def folder(config: RunConfig, runtime: Runtime) -> Path:
    return train(config, runtime.results)


@pytest.fixture(scope="module")
def subject(folder: Path, runtime: Runtime) -> Subject:
    return open_run(folder, runtime)


def test_facts_outside_the_blocked_part_keep_their_answers(
    subject: Subject, runtime: Runtime
) -> None:
    own = subject.route([CITY.prompt.format(fact.subject) for fact in CITY.facts])
    leaf = int(own[0, -1])
    blockings = [block_subtree(2, leaf), block_best(4)]
    frame = block_facts(subject, runtime, blockings, [CITY]).set_index("blocking")
    one = frame.loc[blockings[0].name]
    assert one["moved"].tolist() == (own[:, -1] == leaf).tolist()
    still = one[~one["moved"]]
    assert (still["logprob_before"] == still["logprob_after"]).all()
    moved = one[one["moved"]]
    assert len(moved) and (moved["logprob_before"] != moved["logprob_after"]).all()
    assert frame.loc["best 1/4", "moved"].all()


def test_the_loss_of_all_is_that_of_the_moved_and_the_others(
    subject: Subject, runtime: Runtime, folder: Path
) -> None:
    blockings = [block_subtree(1, 0), block_subtree(1, 1), block_best(2)]
    nothing, zero, one, half = block_losses(subject, runtime, blockings).itertuples(index=False)
    record = json.loads((folder / "record.json").read_text())
    assert nothing.loss == pytest.approx(record["loss_test_prefix"], rel=1e-6)
    assert (nothing.blocked, zero.blocked, half.blocked) == (0, 0.5, 0.5)
    assert zero.windows == zero.moved + one.moved == half.moved == 30
    assert zero.moved and one.moved
    # A window's best half is the one that it is in, so both halves together are the adversary.
    forgotten = [row.loss - nothing.loss for row in (zero, one, half)]
    assert forgotten[0] + forgotten[1] == pytest.approx(forgotten[2], rel=1e-4)
    assert half.before == pytest.approx(nothing.loss) and half.after == pytest.approx(half.loss)
    assert zero.before != zero.after


def test_tables_are_written(folder: Path, runtime: Runtime) -> None:
    table = block_run(folder, runtime, probes=[CITY])
    assert table["blocking"].tolist() == ["nothing", "best 1/4", "best 1/2"]
    assert table["blocked"].tolist() == [0, 0.25, 0.5]
    assert (table["asked"] == 5).all() and (table["known"] > 0).all()
    assert (table["known"] == table["forgotten"] + table["kept"]).all()
    assert table.loc[0, "forgotten"] == 0
    pd.testing.assert_frame_equal(pd.read_csv(folder / "blocking.csv"), table, check_dtype=False)
    facts = pd.read_csv(folder / "blocking_facts.csv")
    assert facts.groupby("blocking").size().to_dict() == dict.fromkeys(table["blocking"], 5)
    assert not facts.loc[facts["blocking"] == "nothing", "moved"].any()


def test_summary_counts_what_was_known() -> None:
    facts = pd.DataFrame(
        {
            "bucket": ["1", "1", "1", "2-3"],
            "rank_before": [1, 1, 3, 1],
            "rank_after": [1, 2, 1, 5],
        }
    )
    found = summarise(facts, ["bucket"])
    assert list(found.columns) == ["asked", "known", "forgotten", "kept"]
    assert found.loc["1"].tolist() == [3, 2, 1, 1]
    assert found.loc["2-3"].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("name", ["none", "generic", "pkm", "ngram", "moe"])
def test_a_memory_without_paths_is_refused(config: RunConfig, runtime: Runtime, name: str) -> None:
    training = {"tokens": 400, "batch_size": 4}
    other = fact_config(Path(config.data.corpus[0]), memory=MEMORIES[name], train=training)
    with pytest.raises(InputError, match=f"memory.type {name} has no paths to block; allowed are"):
        block_run(train(other, runtime.results), runtime, probes=[CITY])
