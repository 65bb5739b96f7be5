"""Write ``experiments/tiny/gym_overlap.md``: what the mini gym has in common with the pretraining stream.

    python -m experiments.tiny.gym_overlap [--documents 300000]

A template is an input with its entities masked. The stream is sampled with another seed than pretraining's
(the generator is the same): the numbers are about the distribution, not about the very documents read.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

from softstart.gym.mini import MiniGym
from softstart.gym.mini.ngrams import mask, ngrams, sharing
from softstart.gym.mini.tasks import TASKS
from softstart.tiny import corpus
from softstart.tiny.world import FIELDS, world

SIZES = (5, 6, 8)
OUT = Path(__file__).parent / "gym_overlap.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=300_000)
    documents = parser.parse_args().documents
    gym = MiniGym()
    inputs, bare, lines = set[str](), set[str](), {}
    names = re.compile(rf"\b({'|'.join(FIELDS)}): ?")
    for name in gym.tasks():
        task = gym.load(name)
        rows = [*task.test, *(e for s in task.samples.values() for e in (*s.train, *s.dev))]
        lines[name] = {mask(e.input) for e in rows}
        inputs |= {e.input for e in rows}
        bare |= {names.sub("", f"{e.input} {e.outputs[0]}") for e in rows}
    verbatim, seen = set[str](), {n: set[tuple[str, ...]]() for n in SIZES}
    for text in corpus.stream(world(0), 11, documents):
        verbatim |= ({text} & inputs) | ({text.rstrip(".")} & bare)
        masked = mask(text)
        for n in SIZES:
            seen[n] |= ngrams(masked, n)
    OUT.write_text(report(documents, len(inputs), len(verbatim), lines, seen), encoding="utf-8")


def report(
    documents: int,
    total: int,
    verbatim: int,
    lines: dict[str, set[tuple[str, ...]]],
    seen: dict[int, set[tuple[str, ...]]],
) -> str:
    every = [line for of_task in lines.values() for line in of_task]
    users: defaultdict[tuple[str, ...], set[bool]] = defaultdict(set)
    for name, of_task in lines.items():
        for line in of_task:
            users[line].add(TASKS[name].candidate)
    both = sum(len(kinds) == 2 for kinds in users.values())
    text = [
        "# The mini gym and the text the embedded model was pretrained on",
        "",
        f"Made by `python -m experiments.tiny.gym_overlap --documents {documents}`.",
        "",
        f"Of {total:,} different inputs of {len(lines)} tasks (all samples and test sets), {verbatim} occur "
        f"among {documents:,} documents of the pretraining stream (as a document, or without field names "
        f"and with the output). There are {len(users):,} different masked lines (entities as slots); "
        f"{both} of them belong to a source and a candidate at once.",
        "",
        "Share of masked lines that have a word n-gram in common with the stream, more than half of it "
        "words of the template (no slots or marks):",
        "",
        "| n | all | sources | candidates |",
        "|---|---|---|---|",
    ]
    for n in SIZES:
        sides = [
            [line for name, of_task in lines.items() if TASKS[name].candidate == side for line in of_task]
            for side in (False, True)
        ]
        cells = (f"{100 * sharing(part, seen[n], n):.1f} %" for part in (every, *sides))
        text.append(f"| {n} | {' | '.join(cells)} |")
    text += [
        "",
        "By task, where it is not zero, with one of the n-grams:",
        "",
        "| n | task | share | such as |",
    ]
    text.append("|---|---|---|---|")
    for n in SIZES:
        for name, of_task in sorted(lines.items()):
            common = set().union(*(ngrams(line, n) for line in of_task)) & seen[n]
            if common:
                share = f"{100 * sharing(of_task, seen[n], n):.0f} %"
                text.append(f"| {n} | {name} | {share} | {' '.join(min(common))} |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
