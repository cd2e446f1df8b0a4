"""A grid file says which runs there are, and nothing else is read from it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import InputError
from sweeps.axes import merge, nest
from sweeps.grid import GRIDS, load_grid
from sweeps.rates import LearningRates

Write = Callable[..., Path]


def test_arms_axes_zip_and_seeds_make_the_product(write_grid: Write) -> None:
    path = write_grid(
        """\
        # First line,
        # second line.
        base: {train: {tokens: 1e6}}
        arms:
          dense: {axes: {anchor: [d32, d64]}}
          ffn:
            anchor: d32
            memory: {type: ffn, widths: [8, 4]}
            axes: {train.tokens: [1e6, 2e6]}
            zip: [{train.lr: 1e-2, memory.lr: 1e-3}, {train.lr: 3e-2, memory.lr: 3e-3}]
        seeds: 2
        """.replace("\n        ", "\n")
    )
    grid = load_grid(str(path))
    assert grid.name == "tiny"
    assert grid.question == "First line, second line."
    points = [
        (
            t.arm,
            t.config.anchor.d_model,
            t.config.train.tokens,
            t.config.train.lr,
            t.config.memory.lr,
        )
        for t in grid.trials
        if t.config.seed == 1
    ]
    assert points == [
        ("dense", 32, 10**6, 1e-2, None),
        ("dense", 64, 10**6, 1e-2, None),
        ("ffn", 32, 10**6, 1e-2, 1e-3),
        ("ffn", 32, 10**6, 3e-2, 3e-3),
        ("ffn", 32, 2 * 10**6, 1e-2, 1e-3),
        ("ffn", 32, 2 * 10**6, 3e-2, 3e-3),
    ]
    assert len(grid.trials) == 2 * len(points)


def test_names_tell_trials_apart(tiny: Path) -> None:
    names = [trial.name for trial in load_grid(str(tiny)).trials]
    assert names == [
        "dense d16 seed 0",
        "dense d16 seed 1",
        "ffn d16 memory.lr 0.01 seed 0",
        "ffn d16 memory.lr 0.01 seed 1",
    ]


def test_given_seeds_replace_those_of_the_file(tiny: Path) -> None:
    assert [t.config.seed for t in load_grid(str(tiny), seeds=3).trials] == [0, 1, 2] * 2


def test_listed_seeds(tiny: Path, write_grid: Write) -> None:
    path = write_grid(tiny.read_text().replace("seeds: 2", "seeds: [5, 3]"), "listed.yaml")
    assert [t.config.seed for t in load_grid(str(path)).trials] == [5, 3] * 2


def test_run_ids_do_not_depend_on_grid_or_arm(tiny: Path, write_grid: Write) -> None:
    renamed = write_grid(tiny.read_text().replace("dense:", "plain:"), "renamed.yaml")
    first, second = load_grid(str(tiny)), load_grid(str(renamed))
    assert [t.run_id for t in first.trials] == [t.run_id for t in second.trials]


def test_a_size_name_and_single_numbers_go_together() -> None:
    merged = merge({"anchor": "d32", "seed": 1}, nest({"anchor.ffn": 64}))
    assert merged == {"anchor": {"size": "d32", "ffn": 64}, "seed": 1}


RATES = (
    "arm,anchor,tokens,lr,memory_lr,extra\ndense,2x16,20000,0.02,,x\nffn,2x16,20000,0.03,0.004,x\n"
)


def test_tuned_rates_fill_what_the_grid_leaves_open(tiny: Path, write_grid: Write) -> None:
    write_grid(RATES, "rates.csv")
    text = tiny.read_text().replace(", axes: {memory.lr: [1e-2]}", "")
    grid = load_grid(str(write_grid(text + "learning_rates: rates.csv\n")))
    rates = {(t.arm, t.config.train.lr, t.config.memory.lr) for t in grid.trials}
    assert rates == {("dense", 0.02, None), ("ffn", 0.03, 0.004)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("arm,anchor,tokens,lr,memory_lr\ndense,2x16,20000,0.02,\n", "no row for arm ffn"),
        ("arm,anchor,lr,memory_lr\ndense,2x16,0.02,\n", "needed are the columns"),
        ("arm,anchor,tokens,lr,memory_lr\ndense,2x16,20000,high,\n", "with numbers"),
        (None, "cannot be read"),
    ],
)
def test_bad_rates_are_refused(
    table: str | None, message: str, tiny: Path, write_grid: Write
) -> None:
    if table:
        write_grid(table, "rates.csv")
    text = tiny.read_text().replace(", axes: {memory.lr: [1e-2]}", "")
    path = write_grid(text + "learning_rates: rates.csv\n")
    with pytest.raises(InputError, match=message):
        load_grid(str(path))


def test_an_arm_may_take_the_rates_of_another(tiny: Path, write_grid: Write) -> None:
    write_grid(RATES, "rates.csv")
    text = tiny.read_text().replace(", axes: {memory.lr: [1e-2]}", "")
    twin = "  twin: {rates_of: ffn, memory: {type: ffn, widths: [2, 1]}}\nseeds: 2\n"
    text = text.replace("seeds: 2\n", twin) + "learning_rates: rates.csv\n"
    ids = {
        arm: [t.run_id for t in load_grid(str(write_grid(text))).trials if t.arm == arm]
        for arm in ("ffn", "twin")
    }
    assert ids["twin"] == ids["ffn"]


def test_of_several_tables_the_first_that_knows_a_point_counts(
    tiny: Path, write_grid: Write
) -> None:
    head, dense, ffn = RATES.splitlines()
    write_grid(f"{head}\n{dense}\n", "first.csv")
    write_grid(f"{head}\n{dense.replace('0.02', '0.5')}\n{ffn}\n", "second.csv")
    text = tiny.read_text().replace(", axes: {memory.lr: [1e-2]}", "")
    grid = load_grid(str(write_grid(text + "learning_rates: [first.csv, second.csv]\n")))
    assert {(t.arm, t.config.train.lr) for t in grid.trials} == {("dense", 0.02), ("ffn", 0.03)}


def test_a_grid_may_take_the_rates_of_another_budget(tiny: Path, write_grid: Write) -> None:
    write_grid(RATES, "rates.csv")
    text = tiny.read_text().replace(", axes: {memory.lr: [1e-2]}", "").replace("20_000", "4e4")
    for_all = text + "learning_rates: rates.csv\nrates_at: 2e4\n"
    rates = {(t.arm, t.config.train.lr) for t in load_grid(str(write_grid(for_all))).trials}
    assert rates == {("dense", 0.02), ("ffn", 0.03)}
    with pytest.raises(InputError, match=r"arm dense: .* tokens 40000 in"):
        load_grid(str(write_grid(text + "learning_rates: rates.csv\n")))


def test_controls_train_nothing_that_quick_has_trained() -> None:
    quick, controls = load_grid("quick"), load_grid("controls")
    shared = {t.run_id for t in quick.trials} & {t.run_id for t in controls.trials}
    repeated = [t for t in quick.trials if t.arm == "dense" or t.config.anchor.d_model < 64]
    assert shared == {t.run_id for t in repeated}


def test_rates_without_memory_hold_none(write_grid: Write) -> None:
    rates = LearningRates.read([write_grid(RATES, "rates.csv")]).rates
    assert rates["dense", "2x16", 20_000] == (0.02, None)


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_grid_loads_and_asks_something(path: Path) -> None:
    grid = load_grid(path.stem)
    assert grid.trials
    assert "?" in grid.question
