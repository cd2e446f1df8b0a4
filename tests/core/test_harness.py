"""The adapter's answers against one text at a time; the harness itself where it is installed."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.config import Runtime
from core.errors import InputError
from core.harness import Answerer, as_lm, question
from core.subject import Subject, open_run
from tests.core.small_runs import CITIES, MEMORIES, fact_config, train, write_corpus


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    results = tmp_path_factory.mktemp("results")
    training = {"tokens": 60_000, "batch_size": 4, "precision": "fp32"}
    config = fact_config(write_corpus(results / "text"), train=training)
    return open_run(train(config, results), Runtime(results=results))


@torch.no_grad()
def slow_nats(subject: Subject, ids: list[int], first: int, key: str) -> tuple[float, bool]:
    """Of the tokens from `first` on; ids start with end-of-text."""
    path = torch.from_numpy(subject.router.route([key]).astype(np.int64))
    tokens = torch.tensor([ids])
    hidden = subject.model.hidden(tokens, torch.zeros_like(tokens), subject.model.fetch(path))
    logprobs = torch.log_softmax(hidden @ subject.model.head_vd.T, -1)[0]
    total = sum(float(logprobs[t - 1, ids[t]]) for t in range(first, len(ids)))
    greedy = all(int(logprobs[t - 1].argmax()) == ids[t] for t in range(first, len(ids)))
    return total, greedy


def test_likelihood_is_routed_on_the_question(subject: Subject) -> None:
    shots = "Oslo is a city in Norway.\n\n"
    pairs = [
        ("Paris is a city in", " France."),
        (shots + "The atomic number of gold is", " 79"),
        ("The atomic number of gold is ", "79"),
        ("", "Lima is a city"),
    ]
    found = Answerer(subject).loglikelihood(pairs)
    encode = subject.codec.encode
    for (context, continuation), (nats, greedy) in zip(pairs, found, strict=True):
        ids = [0, *encode(context + continuation)]
        first = 1 + len(encode(context.rstrip()))
        expected = slow_nats(subject, ids, first, context.replace(shots, ""))
        assert nats == pytest.approx(expected[0], rel=1e-4)
        assert greedy == expected[1]
    assert found[0][1]  # stated 40 times in the text


def test_rolling_adds_up_over_windows(subject: Subject) -> None:
    short, long = (
        "Paris is a city in France.",
        " ".join(f"old market street {i}" for i in range(40)),
    )
    found = Answerer(subject).loglikelihood_rolling([short, long, ""])
    ids = subject.codec.encode(long)
    assert len(ids) > 2 * 48
    chunks = [ids[start : start + 48] for start in range(0, len(ids), 48)]
    expected = sum(slow_nats(subject, [0, *chunk], 1, long)[0] for chunk in chunks)
    assert found[1] == pytest.approx(expected, rel=1e-4)
    assert found[0] == pytest.approx(
        slow_nats(subject, [0, *subject.codec.encode(short)], 1, short)[0], rel=1e-4
    )
    assert found[2] == 0.0


def test_generation_stops_at_the_first_stop_string(subject: Subject) -> None:
    context = "Paris is a city in"
    requests = [
        (context, {"until": ["\n"], "max_gen_toks": 6}),
        (context, {"until": [".", "ance"], "max_gen_toks": 6}),
        (context, {"until": ".", "max_gen_toks": 2}),
        ("Kyoto is a city in", {"until": ["."], "max_gen_toks": 6}),
    ]
    whole, stopped, short, other = Answerer(subject).generate_until(requests)
    assert whole.startswith(" France.")
    assert stopped == " Fr"
    assert whole.startswith(short) and len(short) < len(whole)
    assert other == " Japan"
    with pytest.raises(InputError, match="generation here is greedy"):
        Answerer(subject).generate_until([(context, {"do_sample": True})])


@pytest.mark.parametrize("name", ["none", "generic", "ngram", "moe"])
def test_a_memory_without_a_tree_is_on_and_needs_no_path(subject: Subject, name: str) -> None:
    training = {"tokens": 2_000, "batch_size": 4, "precision": "fp32"}
    corpus = Path(subject.data.corpus[0])
    config = fact_config(corpus, memory=MEMORIES[name], train=training)
    results = corpus.parents[1]
    other = open_run(train(config, results), Runtime(results=results))
    [(nats, _)] = Answerer(other).loglikelihood([("Paris is a city in", " France.")])
    ids = [0, *other.codec.encode("Paris is a city in France.")]
    first = 1 + len(other.codec.encode("Paris is a city in"))
    assert nats == pytest.approx(slow_nats(other, ids, first, "")[0], rel=1e-4)


def test_the_question_is_the_last_example() -> None:
    assert question("Q: a\nA: b\n\nQ: c\nA:") == "Q: c\nA:"
    assert question("Q: c\nA:") == "Q: c\nA:"
    assert question("") == ""


def test_without_the_extra_it_says_what_to_install(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(InputError, match=r"pip install memscale\[lm-eval\]"):
        as_lm(subject)


def test_a_local_task_runs_in_the_harness(subject: Subject, tmp_path: Path) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    manager = pytest.importorskip("lm_eval.tasks").TaskManager
    countries = sorted(set(CITIES.values()))
    rows = [
        {"question": f"{city} is a city in", "choices": countries, "gold": countries.index(country)}
        for city, country in CITIES.items()
    ]
    data = tmp_path / "cities.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "cities.yaml").write_text(
        "task: cities\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: gold\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (tmp_path / "text.yaml").write_text(
        "task: text\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        "test_split: test\noutput_type: loglikelihood_rolling\n"
        'doc_to_text: ""\ndoc_to_target: "{{question}}"\n'
        "metric_list: [{metric: word_perplexity, higher_is_better: false}]\n"
    )
    (tmp_path / "says.yaml").write_text(
        "task: says\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        "test_split: test\noutput_type: generate_until\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: "{{choices[gold]}}"\n'
        "generation_kwargs: {until: ['.'], max_gen_toks: 6}\n"
        "metric_list: [{metric: exact_match, ignore_case: true, higher_is_better: true}]\n"
        "filter_list: [{name: strip, filter: [{function: remove_whitespace},"
        " {function: take_first}]}]\n"
    )
    tasks = manager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=as_lm(subject),
        tasks=["cities", "text", "says"],
        task_manager=tasks,
        bootstrap_iters=0,
    )["results"]
    answers = Answerer(subject)
    pairs = [(row["question"], f" {country}") for row in rows for country in countries]
    nats = np.array([pair[0] for pair in answers.loglikelihood(pairs)]).reshape(len(rows), -1)
    right = nats.argmax(1) == np.array([row["gold"] for row in rows])
    assert found["cities"]["acc,none"] == right.mean() > 0.5
    words = sum(len(str(row["question"]).split()) for row in rows)
    rolling = sum(answers.loglikelihood_rolling([str(row["question"]) for row in rows]))
    assert found["text"]["word_perplexity,none"] == pytest.approx(math.exp(-rolling / words))
    assert found["says"]["exact_match,strip"] > 0.5
