"""Draw the tables of this experiment: ``python -m experiments.tables CLONES OUT``.

CLONES holds clones of AcademiaSinicaNLPLab/sentiment_dataset, PolyAI-LDN/task-specific-datasets and
FakeNewsChallenge/fnc-1, each under the name of its repository.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

TOPICS = ("card_arrival", "lost_or_stolen_card", "exchange_rate", "top_up_failed")
"""The four intents of the smaller table of a bank's customers."""
Row = tuple[str, ...]


def by_label(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows by their last column, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[-1], []).append(row)
    return list(found.values())


def split(rows: Iterable[Row], train: int, test: int, rng: random.Random) -> tuple[list[Row], list[Row]]:
    """So many rows of each label to learn from and to test on."""
    first: list[Row] = []
    second: list[Row] = []
    for of_label in by_label(rows):
        rng.shuffle(of_label)
        first += of_label[:train]
        second += of_label[train : train + test]
    rng.shuffle(first)
    rng.shuffle(second)
    return first, second


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def opinions(clones: Path, out: Path, rng: random.Random) -> None:
    """Sentences about films: opinions (0) or facts (1)."""
    lines = (clones / "sentiment_dataset/data/subj.all").read_text(encoding="latin-1").splitlines()
    rows = [(line[2:].strip(), line[0]) for line in lines if line[:1] in ("0", "1")]
    for name, part in zip(("opinions", "opinions-later"), split(rows, 60, 100, rng), strict=True):
        write(out / f"{name}.csv", ("sentence", "objective"), part)


def bank(clones: Path, out: Path, rng: random.Random) -> None:
    """Questions of a bank's customers on four topics."""
    folder = clones / "task-specific-datasets/banking_data"
    train, test = (
        [tuple(row.values()) for row in read(folder / f"{part}.csv") if row["category"] in TOPICS]
        for part in ("train", "test")
    )
    write(out / "bank.csv", ("text", "category"), split(train, 30, 0, rng)[0])
    write(out / "bank-later.csv", ("text", "category"), test)


def news(clones: Path, out: Path, rng: random.Random) -> None:
    """Headlines and articles, and whether they agree; each headline once."""
    folder = clones / "fnc-1"
    bodies = {row["Body ID"]: row["articleBody"] for row in read(folder / "competition_test_bodies.csv")}
    pairs = [
        (row["Headline"], bodies[row["Body ID"]], row["Stance"])
        for row in read(folder / "competition_test_stances.csv")
    ]
    rng.shuffle(pairs)
    once: dict[str, Row] = {}
    for pair in pairs:
        once.setdefault(pair[0], pair)
    for name, part in zip(("news", "news-later"), split(once.values(), 18, 25, rng), strict=True):
        write(out / f"{name}.csv", ("Headline", "articleBody", "Stance"), part)


if __name__ == "__main__":
    clones, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    seeded = random.Random(25)
    for draw in (opinions, bank, news):
        draw(clones, out, seeded)
