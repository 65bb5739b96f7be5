"""What the model knows: development losses and exact-match probes by family, seen and held-back facts apart.

Held-back facts are measured twice: in the form in which pretraining states them, and as questions and claims,
which pretraining asks about other entities only.

Decisions about pretraining are based on these numbers, never on the gym's target tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from transformers import T5ForConditionalGeneration

from softstart.tiny import batches, corpus
from softstart.tiny.answers import ANSWERS
from softstart.tiny.claims import CLAIMS, verify
from softstart.tiny.documents import an
from softstart.tiny.world import Pool, World

Pair = tuple[str, str]


def facts(pool: Pool) -> dict[str, list[Pair]]:
    """Beginnings of plain statements and how they continue: the form in which held-back facts were shown."""
    return {
        "animal kind": [
            (f"the {x} is {an(f[0])[: -len(f[0])].strip()}", f[0]) for x, f in pool.animals.items()
        ],
        "food kind": [(f"the {x} is {an(f[0])[: -len(f[0])].strip()}", f[0]) for x, f in pool.foods.items()],
        "thing kind": [(f"the {x} is a kind of", kind) for x, kind in pool.things.items()],
        "animal home": [(f"the {x} lives in the", f[1]) for x, f in pool.animals.items()],
        "taste": [(f"the {x} tastes", f[1]) for x, f in pool.foods.items()],
        "capital": [(f"the capital of {x} is", f[0]) for x, f in pool.countries.items()],
        "city": [(f"{x} is a city in", country) for x, country in pool.cities.items()],
        "opposite": [(f"{x} is the opposite of", y) for x, y in pool.opposites],
        "synonym": [(f"{x} means the same as", y) for x, y in pool.synonyms],
        "plural": [(f"one {x}, two", y) for x, y in pool.plurals.items()],
        "past": [(f"today they {x}. yesterday they", y) for x, y in pool.verbs.items()],
        "verdict": [(f"the film was {x}. it was", "good") for x in pool.positive]
        + [(f"the film was {x}. it was", "bad") for x in pool.negative],
        "emotion": [(f"{x} people feel", e) for e, words in pool.feelings.items() for x in words],
        "topic": [(f"the {x} is part of", t) for t, words in pool.topics.items() for x in words],
    }


@torch.no_grad()
def answers(model: T5ForConditionalGeneration, tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Greedy answers, without their final period."""
    rows = [(encoding.ids, [1]) for encoding in tokenizer.encode_batch(list(texts))]
    inputs = batches.pad(rows)
    out = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=12,
        do_sample=False,
    )
    return [
        text.strip().rstrip(".") for text in tokenizer.decode_batch(out.tolist(), skip_special_tokens=True)
    ]


def accuracy(
    model: T5ForConditionalGeneration, tokenizer: Tokenizer, pairs: Sequence[Pair], *, first: bool
) -> float:
    """Share of exact answers; with ``first``, only the first word has to be right."""
    got = answers(model, tokenizer, [x for x, _ in pairs])
    hits = [(g.split(".")[0].strip() if first else g) == y for g, (_, y) in zip(got, pairs, strict=True)]
    return round(sum(hits) / len(hits), 3)


def probe(
    model: T5ForConditionalGeneration, tokenizer: Tokenizer, w: World, n: int = 40
) -> dict[str, dict[str, float]]:
    """Accuracy by family and kind, every family with its mean.

    The families are claims (chance is one half), answers, and facts as pretraining states them, each about
    seen and about held-back entities.
    """
    was_training = model.training
    model.eval()
    result: dict[str, dict[str, float]] = {}
    for side, name in ((w, ""), (replace(w, seen=w.held), "held-back ")):
        r = corpus.rng(1, 0, "probe")
        claims = {kind.__name__: [verify(side, r, {kind: 1}) for _ in range(n)] for kind in CLAIMS}
        asked = {kind.__name__: [kind(side, r) for _ in range(n)] for kind in ANSWERS}
        stated = facts(side.seen)
        result[f"{name}claims"] = {k: accuracy(model, tokenizer, v, first=False) for k, v in claims.items()}
        result[f"{name}answers"] = {k: accuracy(model, tokenizer, v, first=False) for k, v in asked.items()}
        result[f"{name or 'seen '}facts"] = {
            k: accuracy(model, tokenizer, v, first=True) for k, v in stated.items()
        }
    for group in result.values():
        group["mean"] = round(sum(group.values()) / len(group), 3)
    model.train(was_training)
    return result


@torch.no_grad()
def dev_loss(model: T5ForConditionalGeneration, tokenizer: Tokenizer, w: World) -> dict[str, float]:
    """Token-mean loss on documents that training does not draw, exercises and general documents apart."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for inputs in batches.group(w, tokenizer, 1, 0, purpose="dev"):
        kind = "exercises" if len(inputs["input_ids"]) == batches.EXERCISE_ROWS else "general"
        count = float((inputs["labels"] != -100).sum())
        totals[kind][0] += float(model(**inputs).loss) * count
        totals[kind][1] += count
    return {kind: round(loss / count, 4) for kind, (loss, count) in sorted(totals.items())}
