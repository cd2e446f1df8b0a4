"""Routed memories against generic ones by how well a prefix is routed."""

import numpy as np
import pandas as pd
import pytest

from analysis.comparisons import multiplier_tables
from analysis.figures_routing import difference_by_agreement, routing_differences
from analysis.optima import find_optima
from analysis.plots import draw
from analysis.runs import one_count_a_budget
from core.record import CURVE
from tests.analysis.conftest import make_runs

# Tree to agreement, what routing by it gains, and what its packing does to every run.
TREES = {
    ("tfidf", "document"): (0.58, 0.0, 0.03),
    ("tfidf", "prefix"): (0.61, 0.02, -0.02),
    ("minilm", "prefix"): (0.72, 0.05, 0.01),
    ("random", "document"): (1.0, 0.01, 0.04),
}


def routed(*trees: tuple[str, str]) -> pd.DataFrame:
    """Dense, and generic and ffn of equal loss but for what routing by each tree gains; all TREES
    where none is named.
    """
    made = make_runs(3, noise=0.0)
    runs = one_count_a_budget(made[made["status"] == "done"])
    generic = runs[runs["arm"] == "generic"].assign(memory_block="ffn")
    parts = [runs[runs["arm"] == "dense"]]
    for tree in trees or TREES:
        agreement, gain, packed = TREES[tree]
        columns = dict(zip(("embedder", "training_key"), tree, strict=True))
        for kind, less in (("generic", 0.0), ("ffn", gain)):
            own = generic.assign(arm="-".join((kind, *tree)), memory_type=kind, **columns)
            own["memory_block"] = "ffn" if kind == "generic" else ""
            own["run_id"] = own["arm"] + own["anchor"] + own["seed"].astype(str)
            own["loss_test_prefix"] += packed - less
            parts.append(own.assign(agreement_leaf=agreement))
    return pd.concat(parts, ignore_index=True)


def test_each_tree_is_compared_with_the_generic_memory_that_it_packed() -> None:
    table = routing_differences(routed(), "test")
    assert len(table) == 3 * len(TREES) and table["packed_alike"].all()
    for (embedder, key), (agreement, gain, _) in TREES.items():
        own = table[(table["embedder"] == embedder) & (table["training_key"] == key)]
        np.testing.assert_allclose(own["difference"], -gain, atol=1e-12)
        assert (own["against"] == f"generic-{embedder}-{key}").all()
        shown = [] if embedder == "random" else [agreement]
        assert own["agreement"].dropna().unique().tolist() == shown


@pytest.mark.parametrize(
    ("column", "value"),
    [("memory_block", "kv"), ("training", "frozen"), ("n_fetched", 1), ("branching", "2-2")],
)
def test_a_generic_memory_of_another_make_is_none_to_compare_with(
    column: str, value: object
) -> None:
    runs = routed()
    runs.loc[runs["memory_type"] == "generic", column] = value
    assert routing_differences(runs, "test").empty


def test_a_random_tree_has_no_place_along_the_axis() -> None:
    data = routing_differences(routed(), "test")
    plot = difference_by_agreement(data)
    pd.testing.assert_frame_equal(plot.data, data)
    (axis,) = plot.figure.axes
    assert axis.get_xlim()[1] < 0.8
    labels = axis.get_legend_handles_labels()[1]
    assert "ffn 4x32, random tree" in labels


@pytest.mark.parametrize(
    ("trees", "series", "names"),
    [
        (
            [("tfidf", "document"), ("tfidf", "prefix"), ("minilm", "prefix")],
            ["ffn 4x32, trained by document", "ffn 4x32, trained by prefix"],
            ["minilm", "tfidf", "tfidf"],
        ),
        (
            [("tfidf", "prefix"), ("minilm", "prefix")],
            ["ffn 4x32"],
            ["minilm, prefix", "tfidf, prefix"],
        ),
    ],
)
def test_points_of_one_tree_are_told_apart_by_training_key(
    trees: list[tuple[str, str]], series: list[str], names: list[str]
) -> None:
    (axis,) = difference_by_agreement(routing_differences(routed(*trees), "test")).figure.axes
    assert set(series) <= set(axis.get_legend_handles_labels()[1])
    (above,) = axis.child_axes
    assert sorted(text.get_text() for text in above.get_xticklabels()) == names


@pytest.mark.parametrize(
    ("other", "drawn"), [(("random", "document"), False), (("minilm", "prefix"), True)]
)
def test_it_is_drawn_where_trees_differ_in_agreement(other: tuple[str, str], drawn: bool) -> None:
    runs = routed(("tfidf", "document"), other)
    worth = multiplier_tables(runs, {}, ["prefix"], "test")
    curves = pd.DataFrame(columns=["run_id", *CURVE])
    extras = dict.fromkeys(("probes", "blocking", "curves"), curves)
    optima = find_optima(runs, curves, "test")
    names = [plot.name for plot in draw(runs, {}, worth, {}, None, optima, extras, "test")]
    assert ("difference_by_agreement" in names) == drawn
