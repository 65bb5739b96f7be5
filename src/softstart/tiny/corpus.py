"""The pretraining stream: which documents are drawn, as a pure function of (seed, step). No torch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from softstart.tiny.answers import answer
from softstart.tiny.claims import CLAIMS, FIRST, verify
from softstart.tiny.documents import DOCUMENTS
from softstart.tiny.world import World

#: Share of the exercises that ask for a word instead of verifying a claim.
ANSWER_SHARE = 0.3


def rng(seed: int, step: int, purpose: str = "") -> random.Random:
    """The random numbers of one step: reproducible, and independent of every other step."""
    return random.Random(f"{seed}/{step}/{purpose}")


def general(w: World, r: random.Random) -> str:
    """One general document, sometimes two; a few join an exercise with its answer as natural text."""
    if r.random() < 0.1:
        text, reply = exercise(w, r)
        return f"{text} {reply}."
    documents = r.choices(list(DOCUMENTS), list(DOCUMENTS.values()), k=2 if r.random() < 0.2 else 1)
    return " ".join(document(w, r) for document in documents)


def exercise(w: World, r: random.Random, *, early: bool = False) -> tuple[str, str]:
    """One verification or short-answer document; early in training mostly the first kinds."""
    if r.random() < ANSWER_SHARE:
        return answer(w, r)
    return verify(w, r, FIRST if early and r.random() < 0.8 else CLAIMS)


def stream(w: World, seed: int, documents: int, purpose: str = "sample") -> Iterator[str]:
    """A sample of the corpus as plain text, half general and half exercises ("input answer")."""
    for i in range(documents):
        r = rng(seed, i, purpose)
        yield general(w, r) if i % 2 else " ".join(exercise(w, r))


def word_counts(w: World, seed: int, documents: int = 20_000) -> Counter[str]:
    """How often each word (letters only) occurs in a sample of the corpus, made-up words included."""
    counts: Counter[str] = Counter()
    for text in stream(w, seed, documents, "words"):
        counts.update("".join(c if c.isalpha() else " " for c in text).split())
    return counts
