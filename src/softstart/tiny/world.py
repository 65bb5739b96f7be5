"""A small consistent world: its people and things, and which of them are held back for the gym. No torch.

The held-back rule: in every list of entities (people, countries with their cities and languages,
animals, foods, things of a kind, nouns of a topic, praising and blaming adjectives, feelings and events of an
emotion, opposites, synonyms, verbs, plurals) the last quarter is *held back*, the rest is *seen*. Pretraining
shows held-back entities only in plain statements and stories (``documents.py``, which asks no questions), so
that they are known; no verification document and no question contains them (``claims.py`` and ``answers.py``
draw from ``World.seen`` only). Field names (``FIELDS``) directly followed by a colon occur only in the gym.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

#: A gym input is made of "field: value" parts with these names; pretraining has no such part.
FIELDS = (
    "review", "premise", "hypothesis", "claim", "context", "question", "choices", "message", "headline",
    "words", "word", "sentence", "passage", "input", "text", "item", "first", "second", "third", "fact",
    "report", "note", "statement", "notice", "letter", "diary", "post", "comment", "example", "entry",
    "record", "option", "list",
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """What is always true of one person."""

    home: str
    job: str
    likes: str
    pet: str


@dataclass(frozen=True)
class Pool:
    """The entities of one side of the rule (all, seen or held back); values are facts about the keys."""

    people: tuple[str, ...]
    countries: Mapping[str, tuple[str, str, str]]  # capital, second city, language
    animals: Mapping[str, tuple[str, str, str]]  # kind, home, size
    foods: Mapping[str, tuple[str, str, str]]  # kind, taste, color
    things: Mapping[str, str]  # kind
    topics: Mapping[str, tuple[str, ...]]
    feelings: Mapping[str, tuple[str, ...]]  # emotion: adjectives
    events: Mapping[str, tuple[str, ...]]  # emotion: what happened
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    opposites: tuple[tuple[str, str], ...]
    synonyms: tuple[tuple[str, str], ...]
    verbs: Mapping[str, str]
    plurals: Mapping[str, str]

    @property
    def cities(self) -> dict[str, str]:
        """City → country."""
        return {city: country for country, (a, b, _) in self.countries.items() for city in (a, b)}

    @property
    def kinds(self) -> dict[str, str]:
        """Animal, food or thing → its kind."""
        named = {**self.animals, **self.foods}
        return {**{name: facts[0] for name, facts in named.items()}, **self.things}

    @property
    def entities(self) -> set[str]:
        """Every single word that the held-back rule covers."""
        pairs = [w for pair in (*self.opposites, *self.synonyms) for w in pair]
        lists = [w for part in (self.topics, self.feelings) for words in part.values() for w in words]
        languages = [language for _, _, language in self.countries.values()]
        tables = [*self.countries, *self.cities, *languages, *self.kinds, *self.verbs, *self.verbs.values()]
        forms = [*self.plurals, *self.plurals.values(), *self.positive, *self.negative]
        return {*self.people, *pairs, *lists, *tables, *forms}


@dataclass(frozen=True)
class World:
    """Everything the generators draw from. Made by ``world(seed)``."""

    all: Pool
    seen: Pool
    held: Pool
    persons: Mapping[str, Person]
    jobs: Mapping[str, tuple[str, str]]  # workplace, what it handles
    neutral: tuple[str, ...]
    reviewed: tuple[str, ...]
    colors: tuple[str, ...]
    numbers: tuple[str, ...]
    days: tuple[str, ...]
    months: tuple[str, ...]
    seasons: Mapping[str, str]  # month → season
    places: tuple[str, ...]
    directions: tuple[str, ...]
    legs: Mapping[str, str]  # kind of animal → number
    plain: tuple[str, ...]

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every single word of the lists, sorted, so that draws do not depend on hash order."""
        lists = (self.colors, self.numbers, self.days, self.months, self.places, self.directions)
        named = {*self.jobs, *self.all.topics, *self.all.feelings, *self.seasons.values()}
        for words in (*lists, self.reviewed, self.plain, self.neutral, *self.jobs.values()):
            named |= set(words)
        named |= {word for events in self.all.events.values() for event in events for word in event.split()}
        return tuple(sorted(named | self.all.entities))


def _quarter(values: Sequence[T], part: str) -> tuple[T, ...]:
    cut = len(values) - len(values) // 4
    return tuple({"all": values, "seen": values[:cut], "held": values[cut:]}[part])


def _table(table: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {key: _frozen(table[key]) for key in _quarter(list(table), part)}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _pool(data: Mapping[str, Any], part: str) -> Pool:
    emotions = data["emotions"]
    return Pool(
        people=_quarter(data["people"], part),
        countries=_table(data["countries"], part),
        animals=_table(data["animals"], part),
        foods=_table(data["foods"], part),
        things={x: kind for kind, names in data["things"].items() for x in _quarter(names, part)},
        topics={topic: _quarter(nouns, part) for topic, nouns in data["topics"].items()},
        feelings={e: _quarter(v["adjectives"], part) for e, v in emotions.items()},
        events={e: _quarter(v["events"], part) for e, v in emotions.items()},
        positive=_quarter(data["positive"], part),
        negative=_quarter(data["negative"], part),
        opposites=tuple((a, b) for a, b in _quarter(data["opposites"], part)),
        synonyms=tuple((a, b) for a, b in _quarter(data["synonyms"], part)),
        verbs=_table(data["verbs"], part),
        plurals=_table(data["plurals"], part),
    )


@lru_cache(maxsize=4)
def world(seed: int = 0) -> World:
    """The world of a seed: the words are fixed, the seed draws who lives where and likes what."""
    text = resources.files("softstart.tiny").joinpath("world.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    everything = _pool(data, "all")
    rng = random.Random(f"world {seed}")
    cities, jobs = list(everything.cities), list(data["jobs"])
    foods, animals = list(everything.foods), list(everything.animals)
    persons = {
        name: Person(rng.choice(cities), rng.choice(jobs), rng.choice(foods), rng.choice(animals))
        for name in everything.people
    }
    plain = {key: tuple(data[key]) for key in (
        "neutral", "reviewed", "colors", "numbers", "days", "months", "places", "directions", "plain"
    )}  # fmt: skip
    return World(
        all=everything,
        seen=_pool(data, "seen"),
        held=_pool(data, "held"),
        persons=persons,
        jobs=_table(data["jobs"], "all"),
        seasons={month: season for season, months in data["seasons"].items() for month in months},
        legs=data["legs"],
        **plain,
    )
