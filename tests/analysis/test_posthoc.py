"""A bank on a frozen pretrained model: paired differences, their figures, their claims."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import posthoc
from analysis.collection import verdicts
from analysis.posthoc import NONE, RANDOM, WORDS, differences

SOURCES, SEEDS, KEYS = ("verse", "recipes"), (1, 2, 3, 4), ("prefix", "document")
CLAIM = """- finding: it helps
  published: it did
  grid: posthoc
  table: differences
  rows: {arm: words, against: none, key: prefix, source: recipes}
  below: 0
"""


def losses() -> pd.DataFrame:
    """Trained arms 0.5 (words) and 0.25 (random) below the model as it was, with seeds' noise that
    the two share in part."""
    rng = np.random.default_rng(0)
    shared = dict(zip(SEEDS, rng.normal(0, 0.1, len(SEEDS)), strict=True))
    rows = [(source, "off", NONE, None, 3.0 + i) for i, source in enumerate(SOURCES)]
    for arm, gain in ((WORDS, 0.5), (RANDOM, 0.25)):
        for seed in SEEDS:
            for i, source in enumerate(SOURCES):
                noise = shared[seed] + rng.normal(0, 0.01)
                rows += [(source, key, arm, seed, 3.0 + i - gain + noise) for key in KEYS]
    return pd.DataFrame(rows, columns=["source", "key", "arm", "seed", "loss"])


def test_differences_are_those_of_paired_seeds() -> None:
    rows = losses()
    found = differences(rows).set_index(["arm", "against", "key", "source"])
    assert len(found) == 3 * len(KEYS) * len(SOURCES)
    cells = rows.set_index(["arm", "key", "source", "seed"])["loss"]
    for (arm, against, key, source), row in found.iterrows():
        base = [
            3.0 + SOURCES.index(source) if against == NONE else cells[against, key, source, seed]
            for seed in SEEDS
        ]
        own = np.array([cells[arm, key, source, seed] for seed in SEEDS]) - base
        expected = stats.ttest_1samp(own, 0).confidence_interval(0.95)
        assert row["difference"] == pytest.approx(own.mean())
        assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
        assert row["seeds"] == len(SEEDS)


def test_a_seed_that_one_arm_lacks_is_in_no_difference_between_arms() -> None:
    rows = losses()
    rows = rows[~((rows["arm"] == RANDOM) & (rows["seed"] == 4))]
    found = differences(rows).groupby(["arm", "against"])["seeds"].first()
    assert found.to_dict() == {(WORDS, NONE): 4, (RANDOM, NONE): 3, (WORDS, RANDOM): 3}


def test_one_arm_alone_is_compared_with_the_model_as_it_was() -> None:
    rows = losses()
    found = differences(rows[(rows["arm"] != RANDOM) & (rows["seed"].fillna(1) == 1)])
    assert set(found["against"]) == {NONE}
    assert set(found["interval"]) == {"one seed: no interval"}


def write_tables(folder: Path) -> None:
    (folder / posthoc.FOLDER).mkdir()
    differences(losses()).to_csv(folder / posthoc.FOLDER / "differences.csv", index=False)
    facts = losses().rename(columns={"source": "bucket", "key": "route", "loss": "exact"})
    found = differences(facts.assign(probe="verses"), ["probe", "bucket"], "route", "exact")
    found.assign(measure="exact").to_csv(
        folder / posthoc.FOLDER / "fact_differences.csv", index=False
    )


def test_figures_show_the_tables(tmp_path: Path) -> None:
    assert posthoc.load_tables(tmp_path) == {}
    write_tables(tmp_path)
    tables = posthoc.load_tables(tmp_path)
    by_source, by_frequency = posthoc.draw(tables)
    axis = by_source.figure.axes[0]
    drawn = [container[0].get_ydata()[0] for container in axis.containers]
    own = tables["differences"].query("against == 'none' and key == 'prefix'")
    assert drawn == own[own["source"] == "verse"]["difference"].tolist()
    assert [t.get_text() for t in axis.get_xticklabels()] == list(SOURCES)
    assert [line.get_label() for line in axis.containers] == [WORDS, RANDOM]
    assert len(by_frequency.figure.axes) == 1 and len(by_frequency.data) == 8


def test_claims_are_judged_by_its_tables(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(CLAIM)
    assert [verdict.word for verdict in verdicts(tmp_path, {})] == ["not run"]
    write_tables(tmp_path)
    (verdict,) = verdicts(tmp_path, {})
    assert verdict.word == "confirmed"
    assert verdict.ours["anchor"].tolist() == ["recipes"]
