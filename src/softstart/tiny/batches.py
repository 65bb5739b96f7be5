"""From documents to padded token batches: span corruption, prefix language modeling, question and answer."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from softstart.tiny import corpus
from softstart.tiny.tokenizer import SENTINELS
from softstart.tiny.world import World

GENERAL_ROWS, EXERCISE_ROWS, GROUP = 32, 64, 16
#: Share of general documents that are span-corrupted, and of the other cuts that fall into the last sentence.
CORRUPTED, LATE_CUTS = 0.35, 0.6
_EOS = 1

Row = tuple[list[int], list[int]]


def corrupt(ids: Sequence[int], sentinels: Sequence[int], r: random.Random) -> Row:
    """Replace a few short spans by sentinels; the target lists what they hid."""
    source: list[int] = []
    target: list[int] = []
    spans = max(1, round(len(ids) * 0.1))
    starts = set(r.sample(range(len(ids)), min(spans, len(ids))))
    i, n = 0, 0
    while i < len(ids):
        if i in starts and n < len(sentinels):
            length = r.choice((1, 1, 2, 3))
            source.append(sentinels[n])
            target += [sentinels[n], *ids[i : i + length]]
            i, n = i + length, n + 1
            if i < len(ids):
                source.append(ids[i])
            i += 1
        else:
            source.append(ids[i])
            i += 1
    return [*source, _EOS], [*target, _EOS]


def split(ids: Sequence[int], stops: frozenset[int], r: random.Random) -> Row:
    """Cut a document in two; the second part is the target."""
    last = max((i + 1 for i, token in enumerate(ids[:-2]) if token in stops), default=1)
    cut = r.randint(last, len(ids) - 1) if r.random() < LATE_CUTS else r.randint(1, len(ids) - 1)
    return [*ids[:cut], _EOS], [*ids[cut:], _EOS]


def pad(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Model inputs; labels are -100 where there is nothing to predict."""
    width, depth = max(len(x) for x, _ in rows), max(len(y) for _, y in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), depth), -100)
    for i, (x, y) in enumerate(rows):
        ids[i, : len(x)] = torch.tensor(x)
        mask[i, : len(x)] = 1
        labels[i, : len(y)] = torch.tensor(y)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def exercise_rows(texts: Sequence[tuple[str, str]], tokenizer: Tokenizer) -> list[Row]:
    """Question and answer, each with an end token."""
    pairs = zip(
        tokenizer.encode_batch([x for x, _ in texts]),
        tokenizer.encode_batch([y for _, y in texts]),
        strict=True,
    )
    return [(x.ids, y.ids) for x, y in pairs]


def general_rows(texts: Sequence[str], tokenizer: Tokenizer, r: random.Random) -> list[Row]:
    """Documents, each corrupted or cut in two."""
    known = tokenizer.get_vocab()
    sentinels = [known[token] for token in SENTINELS]
    stops = frozenset(known[token] for token in (".", "?", ":"))
    rows = []
    for encoding in tokenizer.encode_batch(list(texts)):
        ids = encoding.ids[:-1]
        rows.append(corrupt(ids, sentinels, r) if r.random() < CORRUPTED else split(ids, stops, r))
    return rows


def group(
    w: World,
    tokenizer: Tokenizer,
    seed: int,
    index: int,
    *,
    early: bool = False,
    purpose: str = "train",
    exercise_share: float = 0.5,
) -> list[dict[str, Tensor]]:
    """The ``GROUP`` batches of a group, a share of them exercises, the others general documents, shuffled.

    Rows of similar length share a batch; otherwise three fifths of all positions would be padding.
    """
    r = corpus.rng(seed, index, purpose)
    asking = round(GROUP * exercise_share)
    asked = [corpus.exercise(w, r, early=early) for _ in range(asking * EXERCISE_ROWS)]
    documents = [corpus.general(w, r) for _ in range((GROUP - asking) * GENERAL_ROWS)]
    batches = []
    for rows, size in (
        (exercise_rows(asked, tokenizer), EXERCISE_ROWS),
        (general_rows(documents, tokenizer, r), GENERAL_ROWS),
    ):
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        batches += [pad(rows[i : i + size]) for i in range(0, len(rows), size)]
    r.shuffle(batches)
    return batches
