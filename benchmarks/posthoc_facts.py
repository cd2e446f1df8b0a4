"""Does a bank on a frozen pretrained model bring facts with it? Asked of posthoc.py's banks.

    python benchmarks/posthoc_facts.py --results results --out results/reference/posthoc

The facts that `make probe` asks, of each run in losses.csv whose bank lies in `--results`: by the
path of the prompt, and by that of the documents that state a fact, an upper bound.

facts.csv: a row a run, kind of fact, bucket (how often the train split states it; `stated`: at all)
and route, with the share that greedy generation names right and the loss of the right answer in
nats; arm `none` is the model as it was. fact_differences.csv: each arm minus `none`, and words
minus each other, with intervals over paired seeds. A run is written as it ends.
"""

import argparse
from pathlib import Path

import pandas as pd

from analysis.posthoc import NONE, STATED, differences
from core.config import Runtime
from core.corpus.fact_counts import lowest
from core.corpus.fact_sample import choose
from core.corpus.facts import Probe, load_probes
from core.corpus.prepare import prepare_windows
from core.generate import score_continuations
from core.posthoc.run import BANK, open_posthoc
from core.probes import encode_answer, generated_right, routes
from core.record import write_csv
from core.subject import Subject

OFF = "off"
ON = {"on": "prompt"}  # a generic block is there whatever the path: beside those that prompts find
KIND = ["probe", "bucket"]
MEASURES = ["exact", "loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder of losses.csv")
    given = parser.parse_args()
    runtime, table = Runtime(results=given.results), given.out / "facts.csv"
    runs = pd.read_csv(given.out / "losses.csv").drop_duplicates("run_id")
    trained = runs.loc[runs["arm"] != NONE, ["run_id", "arm", "seed"]]
    for run_id, arm, seed in trained.itertuples(index=False, name=None):
        folder = runtime.results / "runs" / run_id
        known = set(pd.read_csv(table)["run_id"]) if table.exists() else set()
        if run_id in known:
            continue
        if not (folder / BANK).exists():
            print(f"not asked: {arm}, seed {seed:g}; no bank in {folder}", flush=True)
            continue
        subject = open_posthoc(folder, runtime)
        if NONE not in known:
            add(table, ask_facts(subject, runtime.cache, off=True), NONE, NONE, None)
        add(table, ask_facts(subject, runtime.cache, off=False), run_id, arm, seed)
    facts = pd.read_csv(table)
    found = [differences(facts, KIND, "route", m).assign(measure=m) for m in MEASURES]
    write_csv(of_equal_facts(pd.concat(found), facts), given.out / "fact_differences.csv")


def of_equal_facts(found: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Without what compares a route with the model as it was on more facts: an oracle is not asked
    those that no document states."""
    asked = facts.groupby([*KIND, "route"])["facts"].first()
    off = asked.xs(OFF, level="route")
    own = asked.reindex(pd.MultiIndex.from_frame(found[[*KIND, "route"]])).to_numpy()
    base = off.reindex(pd.MultiIndex.from_frame(found[KIND])).to_numpy()
    return found[(found["against"] != NONE) | (own == base)]


def add(table: Path, asked: pd.DataFrame, run_id: str, arm: str, seed: float | None) -> None:
    own = asked.assign(run_id=run_id, arm=arm, seed=seed)
    known = [pd.read_csv(table)] if table.exists() else []
    write_csv(pd.concat([*known, own], ignore_index=True), table)
    print(own[own["bucket"] == STATED].to_string(index=False, header=False), flush=True)


def ask_facts(subject: Subject, cache: Path, off: bool) -> pd.DataFrame:
    """Means by probe, bucket and route: with the memory off, or by every route that it has."""
    facts = pd.concat([ask_probe(subject, probe, cache, off) for probe in load_probes(cache)])
    facts = facts.sort_values("bucket", key=lambda bucket: bucket.map(lowest), kind="stable")
    stated = facts[facts["bucket"].map(lowest) > 0].assign(bucket=STATED)
    groups = pd.concat([facts, stated]).groupby([*KIND, "route"], sort=False)
    means = groups[MEASURES].mean()
    return means.assign(facts=groups.size()).reset_index()


def ask_probe(subject: Subject, probe: Probe, cache: Path, off: bool) -> pd.DataFrame:
    """A row a fact and route. Unlike `make probe`'s answers not ranked among all of their kind,
    which would take a model of this size an hour a run."""
    train = prepare_windows(subject.data, cache).split("train")
    model, codec = subject.model, subject.codec
    rows = []
    for route, chosen, path_nl in routes(probe, choose(probe, subject.data, cache), subject, train):
        if (route == OFF) != off:
            continue
        facts = [asked.fact for asked in chosen]
        prompts = [codec.encode(probe.prompt.format(fact.subject)) for fact in facts]
        answers = [encode_answer(codec, fact.answer) for fact in facts]
        scored = score_continuations(model, codec, prompts, answers, path_nl)
        right = generated_right(model, codec, probe, facts, path_nl)
        rows += [
            (probe.name, asked.bucket, ON.get(route, route), exact, -found.logprob)
            for asked, exact, found in zip(chosen, right, scored, strict=True)
        ]
    return pd.DataFrame(rows, columns=[*KIND, "route", *MEASURES])


if __name__ == "__main__":
    main()
