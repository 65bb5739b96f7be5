"""What templates cannot express: functions from the rows of a split to rows, named by catalog entries.

A quirk may drop, merge or extend rows. What it adds has a name in capitals, which templates use like a
column. A quirk that draws random numbers takes them from numpy's legacy generator under seed 42, restarted
for each split, as the published files were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from softstart.errors import SoftstartError
from softstart.gym.template import Row, apply, get
from softstart.registry import Registry

Quirk = Callable[[Iterable[Row]], Iterator[Row]]

QUIRKS: Registry[Quirk] = Registry("quirk")
"""Quirks by name, as the ``quirk`` of an entry or the ``prepare`` of its dataset."""

_SEED = 42
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def pair_swap(good: str, bad: str) -> Quirk:
    """A random draw per row decides which sentence comes FIRST; SIDE is 0 if that is the good one, else 1."""

    def swap(rows: Iterable[Row]) -> Iterator[Row]:
        random = np.random.RandomState(_SEED)
        for row in rows:
            side = 0 if random.random_sample() > 0.5 else 1
            pair = (row[good], row[bad])
            yield {**row, "FIRST": pair[side], "SECOND": pair[1 - side], "SIDE": side}

    return swap


QUIRKS.add("blimp", pair_swap("sentence_good", "sentence_bad"))
QUIRKS.add("crows_pairs", pair_swap("sent_more", "sent_less"))


@QUIRKS.register("acronym")
def acronym(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows with exactly one short and one long form marked: ACRONYM and LONGFORM are their tokens."""
    begin_long, begin_short, inside_long, inside_short = 0, 1, 2, 3
    for row in rows:
        tokens, labels = row["tokens"], list(row["labels"])
        if labels.count(begin_long) == 1 and labels.count(begin_short) == 1:
            yield {
                **row,
                "ACRONYM": _span(tokens, labels, begin_short, inside_short),
                "LONGFORM": _span(tokens, labels, begin_long, inside_long),
            }


@QUIRKS.register("aqua_options")
def aqua_options(rows: Iterable[Row]) -> Iterator[Row]:
    """Options like ``A)21`` as OPTIONS; RIGHT is the text of the one whose letter 'correct' names."""
    for row in rows:
        options = row["options"]
        right = [option[2:] for option in options if option[:1] == row["correct"]]
        if not right:
            raise SoftstartError(f"no option has the letter {row['correct']!r} of field 'correct'")
        lettered = "".join(f" ({option[:2]} {option[2:]}" for option in options)
        yield {**row, "OPTIONS": lettered, "RIGHT": right[0]}


@QUIRKS.register("common_gen")
def common_gen(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of one concept set merged: the first row's concepts, every target an answer (TARGETS)."""
    yield from _merged(rows, lambda row: row["concept_set_idx"], TARGETS=lambda row: row["target"])


@QUIRKS.register("duorc")
def duorc(rows: Iterable[Row]) -> Iterator[Row]:
    """Drops unanswerable questions and plots that begin with the notice of being too long."""
    notice = (
        "This article's plot summary may be too long or excessively detailed. "
        "Please help improve it by removing unnecessary details and making it more concise."
    )
    for row in rows:
        if int(row["no_answer"]) != 1 and not row["plot"].startswith(notice):
            yield row


@QUIRKS.register("empathetic_dialogues")
def empathetic_dialogues(rows: Iterable[Row]) -> Iterator[Row]:
    """Drops utterances with ``hit:`` and merges rows with the same input line (UTTERANCES)."""
    kept = (row for row in rows if "hit:" not in row["utterance"])
    yield from _merged(
        kept,
        lambda row: f"{row['prompt'].replace('_comma_', ',')} [SEP] {row['context']}",
        UTTERANCES=lambda row: row["utterance"],
    )


@QUIRKS.register("wellformed")
def wellformed(rows: Iterable[Row]) -> Iterator[Row]:
    """WELLFORMED: 1 above a rating of 0.6, 0 below 0.4, other rows dropped.

    The rating is a 32-bit float, so 0.6 counts as above and 0.4 does not count as below.
    """
    for row in rows:
        rating = float(np.float32(row["rating"]))
        if rating < 0.4 or rating > 0.6:
            yield {**row, "WELLFORMED": int(rating > 0.6)}


@QUIRKS.register("majority")
def majority(rows: Iterable[Row]) -> Iterator[Row]:
    """MAJORITY: the label that more annotators gave than any other; ties are dropped."""
    for row in rows:
        ranked = Counter(get(row, "annotators.label")).most_common(2)
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            yield {**row, "MAJORITY": ranked[0][0]}


@QUIRKS.register("hotpot")
def hotpot(rows: Iterable[Row]) -> Iterator[Row]:
    """CONTEXT: the paragraphs that hold supporting facts, in their order, each ending in a space."""
    for row in rows:
        facts = set(get(row, "supporting_facts.title"))
        paragraphs = zip(get(row, "context.title"), get(row, "context.sentences"), strict=True)
        context = "".join("".join(sentences) + " " for title, sentences in paragraphs if title in facts)
        yield {**row, "CONTEXT": context}


@QUIRKS.register("math_qa")
def math_qa(rows: Iterable[Row]) -> Iterator[Row]:
    """The five options of one string, cut at its commas, as OPTIONS; RIGHT is the one 'correct' names.

    Texts are taken by character position. A comma inside an option shifts the rest, as in the published
    files; a row whose right answer comes out empty is dropped.
    """
    for row in rows:
        parts = row["options"].split(",")
        if len(parts) < 5 or row["correct"] not in tuple("abcde"):
            raise SoftstartError(f"expected five options and a letter from a to e: {row['options']!r}")
        texts = [parts[0][4:-1], *(part[5:-1] for part in parts[1:4]), parts[4][5:]]
        if right := texts["abcde".index(row["correct"])]:
            yield {**row, "OPTIONS": _lettered(texts), "RIGHT": right}


@QUIRKS.register("quarel")
def quarel(rows: Iterable[Row]) -> Iterator[Row]:
    """RIGHT: the text behind (A) or (B) in the question, without the "or " between them."""
    for row in rows:
        question = row["question"]
        a, b = question.find("(A)"), question.find("(B)")
        right = question[a + 4 : b] if row["answer_index"] == 0 else question[b + 4 :]
        yield {**row, "RIGHT": right[:-3] if right.endswith("or ") else right}


@QUIRKS.register("sciq")
def sciq(rows: Iterable[Row]) -> Iterator[Row]:
    """The three distractors and the answer in random order, as OPTIONS; rows without support dropped."""
    random = np.random.RandomState(_SEED)
    for row in rows:
        if apply(["lf"], row["support"]):
            texts = [row["distractor1"], row["distractor2"], row["distractor3"], row["correct_answer"]]
            random.shuffle(texts)
            yield {**row, "OPTIONS": _lettered(texts)}


@QUIRKS.register("multirc")
def multirc(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of one question number merged: OPTIONS lists their answers, CORRECT joins the right ones."""
    merged = _merged(
        rows,
        lambda row: get(row, "idx.question"),
        TEXTS=lambda row: row["answer"],
        MARKS=lambda row: int(row["label"]),
    )
    for row in merged:
        right = [text for text, mark in zip(row["TEXTS"], row["MARKS"], strict=True) if mark == 1]
        options = _lettered([apply(["line"], text) for text in row["TEXTS"][: len(_LETTERS)]])
        yield {**row, "OPTIONS": options, "CORRECT": " [SEP] ".join(right) or "NO ANSWER!"}


@QUIRKS.register("wiki_bio")
def wiki_bio(rows: Iterable[Row]) -> Iterator[Row]:
    """TABLE: every column as ``header: content [n] ``; rows with unequal numbers of the two dropped."""
    for row in rows:
        table = get(row, "input_text.table")
        headers, contents = get(table, "column_header"), get(table, "content")
        if len(headers) == len(contents):
            cells = zip(headers, contents, strict=True)
            yield {
                **row,
                "TABLE": "".join(f"{head}: {apply(['strip', 'lf'], cell)} [n] " for head, cell in cells),
            }


@QUIRKS.register("strip_squad")
def strip_squad(rows: Iterable[Row]) -> Iterator[Row]:
    """SQuAD as the loader of 2021 gave it: question, context and answers without white space around."""
    for row in rows:
        answers = dict(row["answers"]) | {"text": [text.strip() for text in get(row, "answers.text")]}
        context, question = row["context"].strip(), row["question"].strip()
        yield {**row, "question": question, "context": context, "answers": answers}


@QUIRKS.register("coarse_trec")
def coarse_trec(rows: Iterable[Row]) -> Iterator[Row]:
    """TREC with the column and the numbers of 2021: today's hub sorts the six coarse classes by name."""
    then = {0: 2, 1: 1, 2: 0, 3: 3, 4: 5, 5: 4}
    for row in rows:
        yield {**row, "label-coarse": then[row["coarse_label"]]} if "coarse_label" in row else row


def _merged(rows: Iterable[Row], key: Callable[[Row], Any], **collect: Callable[[Row], Any]) -> Iterator[Row]:
    """Rows of one key as its first row, with a list of what each of them gives, in order of appearance."""
    groups: dict[Any, dict[str, Any]] = {}
    for row in rows:
        group = groups.setdefault(key(row), {**row, **{name: [] for name in collect}})
        for name, value in collect.items():
            group[name].append(value(row))
    yield from groups.values()


def _span(tokens: list[str], labels: list[int], begin: int, inside: int) -> str:
    start = end = labels.index(begin)
    while end + 1 < len(labels) and labels[end + 1] == inside:
        end += 1
    return " ".join(tokens[start : end + 1])


def _lettered(texts: list[str]) -> str:
    return "".join(f" ({letter}) {text}" for letter, text in zip(_LETTERS, texts, strict=False))
