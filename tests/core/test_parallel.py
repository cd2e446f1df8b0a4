"""Two processes end where one does, but for rounding: weights, bank, curve and record."""

import faulthandler
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from core import parallel
from core.anchor import Anchor
from core.checkpoint import load_weights, save_weights
from core.config import Paths, RunConfig, Runtime
from core.dataset import Dataset
from core.device import check_processes
from core.errors import InputError
from core.identity import run_id
from core.load import load_run
from core.record import KEYS, RunRecord, Status, read_record
from core.train import train_run
from core.trainer import Trainer
from tests.core.test_train import ARMS, Killed, kill

STEPS = {"tokens": 10 * 64}
START = {"start": {"tokens": 5 * 64, "lr": 1e-2}}
CASES: dict[str, dict[str, Any]] = {
    "dense": {"anchor": {"size": "d16", "tied": False}, "train": {**STEPS, "accumulate": 2}},
    "device": {"memory": ARMS["ffn"], "train": STEPS},
    "disk": {"memory": ARMS["ffn"], "train": STEPS},
    "compiled": {"memory": ARMS["kv"], "train": STEPS},
    "frozen": {"memory": ARMS["ffn"], "train": {**STEPS, "mode": "frozen", **START}},
    "pkm": {"memory": ARMS["pkm"], "train": STEPS},
    "moe": {"memory": ARMS["moe"], "train": STEPS},
}
DIVERGED = {"diverged": {"train": {**STEPS, "diverged_above": 0.9}}}
GRADIENTS: dict[str, dict[str, Any]] = {
    "clipped": {"memory": ARMS["ffn"], "train": {**STEPS, "clip": 0.1}},
    "unclipped": {"memory": ARMS["pkm"], "train": {**STEPS, "clip": 1e9}},
}
CRASHES = "SIGSEGV", "SIGABRT"
TRACED = partialmethod(Anchor.compile_trunk, "eager")  # a machine of tests may have no compiler
# AdamW makes a step of about its rate out of the rounding of a gradient near zero.
CLOSE = {"rtol": 1e-4, "atol": 5e-5}


@dataclass(frozen=True)
class Work:
    """What one process does alone and two do together, in `folder`."""

    folder: Path
    dataset: Dataset
    configs: Mapping[str, RunConfig]

    def train(self, case: str, name: str, kill_at: float = np.inf) -> RunRecord:
        def on_log(point: dict[str, float]) -> None:
            if point["step"] >= kill_at:
                kill()

        place = "disk" if case == "disk" else "device"
        every = 0.0 if case == "disk" or name.startswith("killed") else 1e9
        paths = Paths(trunk="compiled" if case == "compiled" else "eager")
        runtime = Runtime(
            processes=parallel.count(), bank=place, checkpoint_seconds=every, paths=paths
        )
        return train_run(self.configs[case], runtime, self.run(case, name), on_log)

    def run(self, case: str, name: str) -> Path:
        return self.folder / name / run_id(self.configs[case])

    def write_gradients(self, case: str) -> None:
        """Of the dense weights and of the rows, as the optimisers see them in the fifth step."""
        config = self.configs[case]
        trainer = Trainer(config, Runtime(), self.folder / case, self.dataset, lambda _: None)
        for _ in range(4):
            trainer.train_step(config.steps)
        seen: dict[str, Tensor] = {}
        dense = dict(trainer.model.dense_parameters())

        def step() -> None:
            seen.update({n: parallel.whole(p.grad) for n, p in dense.items() if p.grad is not None})

        def row_step(gradients: Any, lr: float) -> None:
            seen.update({f"row{n}": g.values.clone() for n, g in enumerate(gradients)})

        trainer.optimizer.step = step  # type: ignore[method-assign, assignment]
        trainer.row_optimizer.step = row_step  # type: ignore[method-assign]
        trainer.train_step(config.steps)
        if parallel.first():
            save_weights(self.folder / f"{case}.safetensors", seen, {})


def together(rank: int, meeting: Path, work: Work) -> None:
    """What each of two processes does. Where it crashes, all its stacks lie in the folder."""
    stacks = (meeting.parent / f"stacks-{rank}").open("w")
    os.dup2(stacks.fileno(), 2)  # where torch writes those of its own threads
    faulthandler.enable(stacks)
    torch._C._set_print_stack_traces_on_fatal_signal(True)
    warnings.filterwarnings("error", module="core")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.train.prepare", lambda *given: work.dataset)
        patch.setattr(Anchor, "compile_trunk", TRACED)
        for case in CASES | DIVERGED:
            record = work.train(case, case)
            assert work.train(case, case).finished == record.finished, "trained again"
        for case in ("device", "disk"):
            with pytest.raises(Killed):
                work.train(case, f"killed {case}", kill_at=6)
            work.train(case, f"killed {case}")
        for case in GRADIENTS:
            work.write_gradients(case)
    dist.destroy_process_group()


def start(folder: Path, work: Work) -> Work:
    """The work of two processes, in `folder`; an error carries the stacks they left."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # Arrow's idle thread takes no signals: torch would ask it for its stack, and give up.
        patch.setenv("JE_ARROW_MALLOC_CONF", "background_thread:false")
        try:
            torch.multiprocessing.spawn(together, (folder / "meeting", work), nprocs=2)
        except torch.multiprocessing.ProcessExitedException as error:
            for stacks in sorted(folder.glob("stacks-*")):
                error.add_note(f"{stacks.name}\n{stacks.read_text()}")
            raise
    return work


def start_again_after_a_crash(folder: Path, work: Work) -> Work:
    """In two of CI's runs, and nowhere else so far, one of two processes ended with a segmentation
    fault, in a thread that runs no Python. Then both begin anew, once, and it is said."""
    try:
        return start(folder / "two", replace(work, folder=folder / "two"))
    except torch.multiprocessing.ProcessExitedException as crash:
        if crash.signal_name not in CRASHES:
            raise
        warnings.warn("\n".join([f"began anew: {crash}", *crash.__notes__]), stacklevel=1)
    return start(folder / "again", replace(work, folder=folder / "again"))


@pytest.fixture(scope="module")
def both(
    make_config: Callable[..., RunConfig],
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Work, Work]:
    """The work of one process, and that of two."""
    configs = {
        case: make_config(**changes) for case, changes in (CASES | DIVERGED | GRADIENTS).items()
    }
    folder = tmp_path_factory.mktemp("parallel")
    one = Work(folder / "one", dataset, configs)
    return one, start_again_after_a_crash(folder, one)


@pytest.fixture
def alone(both: tuple[Work, Work], monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr("core.train.prepare", lambda *given: both[0].dataset)
    monkeypatch.setattr(Anchor, "compile_trunk", TRACED)
    return both[0]


@pytest.mark.parametrize("case", CASES)
def test_two_end_where_one_does(both: tuple[Work, Work], alone: Work, case: str) -> None:
    expected = alone.train(case, case)
    one, two = (work.run(case, case) for work in both)
    found = read_record(two / "record.json")
    assert (found.status, found.tokens) == (Status.DONE, expected.tokens)
    for column in ["loss_train", *(f"loss_test_{key}" for key in KEYS["test"])]:
        assert getattr(found, column) == pytest.approx(
            getattr(expected, column), rel=1e-5, nan_ok=True
        )
    curves = (pd.read_csv(folder / "curve.csv") for folder in (one, two))
    pd.testing.assert_frame_equal(*curves, rtol=1e-5)
    paths = torch.from_numpy(alone.dataset.test.path_document_nl.astype(np.int64))
    for ours, theirs in zip(*(load_run(folder).fetch(paths) for folder in (one, two)), strict=True):
        torch.testing.assert_close(ours.rows, theirs.rows, **CLOSE)
    ours, theirs = (load_weights(folder / "model.safetensors") for folder in (one, two))
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_two_stop_where_one_does(both: tuple[Work, Work], alone: Work) -> None:
    expected = alone.train("diverged", "diverged")
    found = read_record(both[1].run("diverged", "diverged") / "record.json")
    assert (found.status, found.cause) == (Status.DIVERGED, expected.cause)


@pytest.mark.parametrize(("case", "rows"), [("device", 0), ("disk", 2)])
def test_two_that_were_killed_go_on_to_the_bit(
    both: tuple[Work, Work], case: str, rows: int
) -> None:
    _, work = both
    whole, killed = (work.run(case, name) for name in (case, f"killed {case}"))
    assert read_record(killed / "record.json").attempts == 2
    files = [path.relative_to(whole) for path in whole.glob("bank/*/rows")]
    assert len(files) == rows
    for file in ("model.safetensors", "curve.csv", *files):
        assert (whole / file).read_bytes() == (killed / file).read_bytes()


@pytest.mark.parametrize("case", GRADIENTS)
def test_optimisers_see_the_gradient_of_the_whole_batch(
    both: tuple[Work, Work], alone: Work, case: str
) -> None:
    """The norm that is clipped is that over the shares of all processes."""
    alone.write_gradients(case)
    one, two = (load_weights(work.folder / f"{case}.safetensors") for work in both)
    assert sum(name.startswith("row") for name in two) == {"clipped": 2, "unclipped": 1}[case]
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-6)
    dense = torch.cat([x.flatten() for name, x in two.items() if not name.startswith("row")])
    norm = dense.norm().item()
    assert norm == pytest.approx(0.1, rel=1e-4) if case == "clipped" else norm > 0.2


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({}, 3, "processes 3: a micro-batch has 4 windows"),
        ({}, 0, "processes 0"),
        ({"train": {"accumulate": 2}}, 4, "a micro-batch has 2 windows"),
        (
            {"memory": ARMS["ffn"], "train": {"mode": "frozen", "tree_part": [0], **START}},
            2,
            "tree_part",
        ),
    ],
)
def test_unlike_shares_are_refused(
    make_config: Callable[..., RunConfig], changes: dict[str, Any], processes: int, message: str
) -> None:
    config = make_config(**changes)
    check_processes(config, 1)
    with pytest.raises(InputError, match=message):
        check_processes(config, processes)
