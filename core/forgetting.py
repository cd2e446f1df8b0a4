"""What a run forgets, and what it keeps, when a part of its bank is blocked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.blocking import Blocking, block_shares, route_open
from core.config import Runtime, load_config
from core.corpus.fact_sample import Asked, choose
from core.corpus.facts import Fact, Probe, load_probes
from core.corpus.prepare import prepare_windows
from core.errors import InputError
from core.evaluate import Score, sampled, score_windows
from core.load import Router
from core.memory_types import BLOCK_TYPES
from core.model import Model
from core.posthoc.run import BANK
from core.prepare import prepare
from core.probes import Answer, ask
from core.record import write_csv
from core.retrieval.keys import window_keys
from core.subject import Subject, open_run

NOTHING = "nothing"  # the name of the row with the whole bank
LOSS_COLUMNS = ("run_id", "blocking", "blocked", "loss", "windows", "moved", "before", "after")


def block_run(
    folder: Path,
    runtime: Runtime,
    blockings: Sequence[Blocking] = (),
    probes: Sequence[Probe] | None = None,
) -> pd.DataFrame:
    """Block parts of the bank of the run of `folder`: a row a blocking, the whole bank first.

    None given: shares from 1/16 to 1/2 that match each text best. Columns: those of `block_losses`;
    of the facts of all probes how many were asked, known before (the right answer ranked first),
    and how many of the known are forgotten (not first any more) and kept. Writes blocking.csv and,
    a row a fact, blocking_facts.csv to `folder`. Raises InputError where no tree addresses the
    run's memory, for a post-hoc run, for a part that its tree has not, and as `open_run` does.
    """
    _refuse_unblockable(folder)
    subject = open_run(folder, runtime)
    chosen = list(blockings) or block_shares(subject.router.tree.clusters)
    losses = block_losses(subject, runtime, chosen)
    facts = block_facts(subject, runtime, chosen, probes)
    table = losses.join(summarise(facts, ["blocking"]), on="blocking")
    write_csv(facts, folder / "blocking_facts.csv")
    write_csv(table, folder / "blocking.csv")
    return table


def _refuse_unblockable(folder: Path) -> None:
    if (folder / BANK).exists():
        raise InputError(f"{folder} is a post-hoc run; give one that was trained with its anchor")
    kind = load_config(folder / "config.yaml").memory.type
    if kind not in BLOCK_TYPES:
        raise InputError(
            f"{folder}: memory.type {kind} has no paths to block; allowed are runs of "
            f"{', '.join(BLOCK_TYPES)}"
        )


def block_losses(subject: Subject, runtime: Runtime, blockings: Sequence[Blocking]) -> pd.DataFrame:
    """Test losses (nats/token, second parts, prefix key) of the windows that evaluation scores.

    blocked: share of the leaves · loss: of all windows · moved: how many had their path blocked,
    with their own loss before and after; the others keep theirs.
    """
    model = subject.model
    assert isinstance(model, Model)
    data, tree = subject.data, subject.tree
    dataset = prepare(data, tree, runtime.cache, runtime.device)
    chosen = sampled(dataset.test, model.config.evaluate.test_windows)
    windows = dataset.test.take(chosen)
    split = prepare_windows(data, runtime.cache).split("test")
    texts = list(window_keys(split, tree, tree.prefix, chosen))

    def score(path_nl: NDArray[np.int32], part_n: NDArray[np.bool_]) -> Score:
        taken = windows.take(part_n)
        return score_windows(model, taken, path_nl[part_n], dataset.token_bytes_v)[0]

    whole = score(windows.path_prefix_nl, np.ones(len(chosen), bool))
    n, nan = len(chosen), float("nan")
    rows = [(subject.run_id, NOTHING, 0.0, whole.loss, n, 0, nan, nan)]
    for blocking in blockings:
        before_nl, after_nl, share = paths(subject.router, blocking, texts)
        moved_n = (before_nl != after_nl).any(axis=1)
        before, after = (score(path_nl, moved_n) for path_nl in (before_nl, after_nl))
        loss = (whole.nats - before.nats + after.nats) / whole.tokens
        own = (before.loss, after.loss) if moved_n.any() else (nan, nan)
        rows.append((subject.run_id, blocking.name, share, loss, n, int(moved_n.sum()), *own))
    return pd.DataFrame(rows, columns=list(LOSS_COLUMNS))


def block_facts(
    subject: Subject,
    runtime: Runtime,
    blockings: Sequence[Blocking],
    probes: Sequence[Probe] | None = None,
) -> pd.DataFrame:
    """Every probe, routed by its prompt, before and after each blocking: a row a fact.

    `moved` says that the fact's path was blocked; exact, rank and logprob stand for both. The rows
    of NOTHING come first.
    """
    rows: list[dict[str, object]] = []
    for probe in load_probes(runtime.cache) if probes is None else probes:
        asked = choose(probe, subject.data, runtime.cache)
        texts = [probe.prompt.format(a.fact.subject) for a in asked]
        facts = [a.fact for a in asked]
        before = ask(subject.model, subject.codec, probe, facts, subject.route(texts))
        after: dict[str, dict[int, Answer]] = {NOTHING: {}}
        after |= {b.name: _ask_moved(subject, probe, facts, texts, b) for b in blockings}
        for name, again in after.items():
            named = {"run_id": subject.run_id, "blocking": name, "probe": probe.name}
            rows += [
                named | _row(fact, answer, again.get(i))
                for i, (fact, answer) in enumerate(zip(asked, before, strict=True))
            ]
    return pd.DataFrame(rows)


def _ask_moved(
    subject: Subject, probe: Probe, facts: list[Fact], texts: list[str], blocking: Blocking
) -> dict[int, Answer]:
    """New answers, by number, of the facts whose path is blocked."""
    before_nl, after_nl, _ = paths(subject.router, blocking, texts)
    moved = np.flatnonzero((before_nl != after_nl).any(axis=1))
    own = [facts[i] for i in moved]
    answers = ask(subject.model, subject.codec, probe, own, after_nl[moved])
    return dict(zip(moved.tolist(), answers, strict=True))


def _row(asked: Asked, before: Answer, after: Answer | None) -> dict[str, object]:
    row: dict[str, object] = {
        "subject": asked.fact.subject,
        "answer": asked.fact.answer,
        "frequency": asked.frequency,
        "bucket": asked.bucket,
        "moved": after is not None,
    }
    for name in Answer.__dataclass_fields__:
        row[f"{name}_before"] = getattr(before, name)
        row[f"{name}_after"] = getattr(after or before, name)
    return row


def summarise(facts: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Facts asked, known, forgotten and kept, indexed by the columns `by` of `block_facts`."""
    known = facts["rank_before"] == 1
    counted = facts.assign(
        asked=1,
        known=known,
        forgotten=known & (facts["rank_after"] > 1),
        kept=known & (facts["rank_after"] == 1),
    )
    return counted.groupby(by)[["asked", "known", "forgotten", "kept"]].sum()


def paths(
    router: Router, blocking: Blocking, texts: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32], float]:
    """Paths [n, levels] of the texts with the whole bank and with what blocking leaves, and the
    share of the leaves that it blocks."""
    vectors_nd = router.embedder.embed(texts)
    open_nc = blocking.open_leaves(router.tree, vectors_nd)
    closed = 1 - float(open_nc.mean())
    return router.tree.route(vectors_nd), route_open(router.tree, vectors_nd, open_nc), closed
