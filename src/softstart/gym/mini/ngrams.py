"""What gym inputs and pretraining text have in common: word n-grams with the entities masked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from softstart.tiny.world import world

SLOT = "_"
_GLUE = frozenset(("a", "an", "at", "for", "in", "of", "the", "to", "was", "with"))


@cache
def entities() -> frozenset[str]:
    """Every word that fills a slot of a template, held back or not."""
    w = world(0)
    lists = (w.colors, w.numbers, w.days, w.months, w.places, w.directions, w.reviewed, w.neutral, w.jobs)
    events = {event for events in w.all.events.values() for event in events}
    homes = {home for _, home, _ in w.all.animals.values()}
    words = {word for group in (*lists, events, homes) for word in group}
    return frozenset(w.all.entities | {word for phrase in words for word in phrase.split()}) - _GLUE


def mask(text: str) -> tuple[str, ...]:
    """The words and punctuation of a text, with ``SLOT`` for an entity or a phrase of entities."""
    words = [SLOT if word in entities() else word for word in re.findall(r"\w+|[^\w\s]", text)]
    return tuple(word for i, word in enumerate(words) if not (word == SLOT and i and words[i - 1] == SLOT))


def ngrams(masked: tuple[str, ...], n: int) -> set[tuple[str, ...]]:
    """The n-grams of a masked text of which more than half are words of the template."""
    grams = (masked[i : i + n] for i in range(len(masked) - n + 1))
    return {gram for gram in grams if sum(word.isalpha() for word in gram) * 2 > n}


def sharing(lines: Iterable[tuple[str, ...]], corpus: set[tuple[str, ...]], n: int) -> float:
    """The share of masked lines that have an n-gram in common with the corpus."""
    shared = [not ngrams(line, n).isdisjoint(corpus) for line in lines]
    return sum(shared) / len(shared) if shared else 0.0
