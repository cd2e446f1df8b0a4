"""Does a model know a fact? Asked by prompt, by how often the training text states the fact.

A memory that the tree addresses has three routes: `prompt`, the path of the prompt's own text;
`oracle (bound)`, the leaf where most windows of the documents that state the fact were trained, an
upper bound that no honest use has; `off`. Any other model has `on`, the model as it is, and `off`
where it works without its memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.config import Runtime, TreeConfig
from core.corpus.fact_counts import lowest
from core.corpus.fact_sample import Asked, choose
from core.corpus.facts import Fact, PhraseFinder, Probe, load_probes
from core.corpus.prepare import prepare_windows
from core.corpus.windows import SplitWindows
from core.generate import Codec, Ids, LanguageModel, Paths, generate, score_continuations
from core.load import Router
from core.posthoc.run import BANK, open_posthoc
from core.record import write_csv
from core.retrieval.keys import window_keys
from core.subject import Subject, open_run

NEW_TOKENS = 12  # generated behind a prompt
ORACLE = "oracle (bound)"  # named as what it is wherever it is shown

COLUMNS = (
    "run_id",
    "probe",
    "subject",
    "answer",
    "frequency",
    "bucket",
    "route",
    "exact",
    "rank",
    "answers",
    "logprob",
)


@dataclass(frozen=True)
class Answer:
    """What a model made of a fact.

    exact: the first answer of its kind in the greedy generation is the right one · rank of the
    right answer among all of its kind, ties counted against it · logprob: nats of the right answer
    """

    exact: bool
    rank: int
    logprob: float


def probe_run(
    folder: Path, runtime: Runtime, probes: Sequence[Probe] | None = None
) -> pd.DataFrame:
    """Ask the run of `folder`, post-hoc or not, every probe; writes probes.csv there.

    Returns what it writes, COLUMNS. A fact that no training document states has no oracle route.
    Raises InputError as `open_run` does, and for facts that cannot be had.
    """
    opened = open_posthoc if (folder / BANK).exists() else open_run
    frame = probe_subject(opened(folder, runtime), runtime.cache, probes)
    write_csv(frame, folder / "probes.csv")
    return frame


def probe_subject(
    subject: Subject, cache: Path, probes: Sequence[Probe] | None = None
) -> pd.DataFrame:
    """What `probe_run` returns, for any model."""
    train = prepare_windows(subject.data, cache).split("train")
    rows = []
    for probe in load_probes(cache) if probes is None else probes:
        asked = choose(probe, subject.data, cache)
        for route, chosen, path_nl in routes(probe, asked, subject, train):
            facts = [a.fact for a in chosen]
            answers = ask(subject.model, subject.codec, probe, facts, path_nl)
            rows += [
                _row(subject.run_id, probe, fact, route, answer)
                for fact, answer in zip(chosen, answers, strict=True)
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Per probe, route and bucket: facts asked, the share generated exactly, the share whose right
    answer ranks first, and its mean log-probability (nats)."""
    asked = frame.assign(first=frame["rank"] == 1, lowest=frame["bucket"].map(lowest))
    groups = asked.groupby(["probe", "route", "lowest", "bucket"])
    table = groups.agg(
        facts=("exact", "size"),
        exact=("exact", "mean"),
        first=("first", "mean"),
        logprob=("logprob", "mean"),
    )
    return table.reset_index().drop(columns="lowest")


def ask(
    model: LanguageModel, codec: Codec, probe: Probe, facts: Sequence[Fact], path_nl: Paths
) -> list[Answer]:
    """The model's answers to `facts`, routed by `path_nl` [n, levels]; None: memory off."""
    exact = generated_right(model, codec, probe, facts, path_nl)
    candidates = [encode_answer(codec, answer) for answer in probe.answers]
    answers = []
    for index, fact in enumerate(facts):
        path = None if path_nl is None else path_nl[[index] * len(candidates)]
        prompt = codec.encode(probe.prompt.format(fact.subject))
        found = score_continuations(model, codec, [prompt] * len(candidates), candidates, path)
        logprobs = np.array([likelihood.logprob for likelihood in found])
        right = logprobs[probe.answers.index(fact.answer)]
        answers.append(Answer(exact[index], int((logprobs >= right).sum()), float(right)))
    return answers


def generated_right(
    model: LanguageModel, codec: Codec, probe: Probe, facts: Sequence[Fact], path_nl: Paths
) -> list[bool]:
    """Whether the first answer of its kind in the greedy generation is the right one."""
    prompts = [probe.prompt.format(fact.subject) for fact in facts]
    finder = PhraseFinder(probe.answers, probe.fold_case)
    generated = generate(model, codec, prompts, path_nl, NEW_TOKENS)
    pairs = zip(generated, facts, strict=True)
    return [finder.find(text)[:1] == [fact.answer] for text, fact in pairs]


def encode_answer(codec: Codec, answer: str) -> Ids:
    """A full stop closes every answer, so that none is the beginning of another (1 and 118)."""
    return codec.encode(f" {answer}.")


def routes(
    probe: Probe, asked: list[Asked], subject: Subject, train: SplitWindows
) -> list[tuple[str, list[Asked], Paths]]:
    """(route, facts, paths) of every way in which `asked` are put to a model."""
    prompts = [probe.prompt.format(a.fact.subject) for a in asked]
    own = "prompt" if subject.routed else "on"
    ways: list[tuple[str, list[Asked], Paths]] = [(own, asked, subject.route(prompts))]
    if subject.removable:
        ways.append(("off", asked, None))
    if subject.routed:
        stated = [a for a in asked if a.documents]
        documents = [a.documents for a in stated]
        oracle_nl = oracle_paths(documents, subject.router, train, subject.tree)
        ways.append((ORACLE, stated, oracle_nl))
    return ways


def oracle_paths(
    documents: Sequence[tuple[int, ...]], router: Router, train: SplitWindows, tree: TreeConfig
) -> NDArray[np.int32]:
    """Path int32 [n, levels] of the leaf that most windows of each list of documents went to."""
    windows = [_windows_of(train, stated) for stated in documents]
    distinct = np.unique(np.concatenate([np.zeros(0, np.int64), *windows]))
    prefix = tree.prefix if tree.key == "prefix" else None
    path_nl = router.route(window_keys(train, tree, prefix, distinct))
    paths = [path_nl[np.searchsorted(distinct, chosen)] for chosen in windows]
    levels = len(tree.branching)
    return np.array([_mode(path) for path in paths], np.int32).reshape(len(paths), levels)


def _windows_of(train: SplitWindows, documents: tuple[int, ...]) -> NDArray[np.int64]:
    first = np.searchsorted(train.document, documents, side="left")
    last = np.searchsorted(train.document, documents, side="right")
    return np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])


def _mode(path_nl: NDArray[np.int32]) -> NDArray[np.int32]:
    """The path whose leaf is the most common; the lower leaf where two are equally so."""
    leaf = np.bincount(path_nl[:, -1]).argmax()
    return path_nl[path_nl[:, -1] == leaf][0]


def _row(run_id: str, probe: Probe, asked: Asked, route: str, answer: Answer) -> dict[str, object]:
    return {
        "run_id": run_id,
        "probe": probe.name,
        "subject": asked.fact.subject,
        "answer": asked.fact.answer,
        "frequency": asked.frequency,
        "bucket": asked.bucket,
        "route": route,
        "exact": answer.exact,
        "rank": answer.rank,
        "answers": len(probe.answers),
        "logprob": answer.logprob,
    }
