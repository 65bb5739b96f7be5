"""Other intervals, and other worlds: ``python -m experiments.intervals [--studies N]`` prints both tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from softstart.analysis.coverage import WORLDS, World, coverage

OTHERS = (
    "studentized",
    "experiments.intervals.others.calibrated",
    "experiments.intervals.others.hierarchical",
)
SEED = 77
"""Not the seed of the table in docs/concepts/intervals.md."""

HELD_OUT = {
    "heavy, other seed": WORLDS["heavy"],
    "large gains": World(low=0.03, high=0.8, gain=0.1, spread=0.1, noise=0.15, heavy=True),
    "losses": World(low=0.02, high=0.8, gain=-0.01, spread=0.04, noise=0.15, heavy=True),
    "moderate": World(low=0.1, high=0.9, gain=0.05, spread=0.08, noise=0.1, heavy=True),
    "lower still": World(low=0.008, high=0.8, noise=0.15, heavy=True),
}
"""Worlds in which nothing of an interval was chosen, and that in which its tails were, under a new seed."""


def compared(studies: int) -> Iterator[str]:
    """Coverage of ARG and points, and the median width of ARG, of three ways to make intervals."""
    yield "| world | tasks | interval | ARG | points | width of ARG |"
    yield "|---|--:|---|--:|--:|--:|"
    for world in ("light", "heavy"):
        for tasks in (4, 8, 16):
            for name in OTHERS:
                held, width = coverage(
                    WORLDS[world], tasks, 5, 1, interval=name, studies=studies, resamples=500, seed=SEED
                )
                cells = (name.rsplit(".", 1)[-1], _share(held[0]), _share(held[2]), f"{width[0]:.0f}")
                yield f"| {world} | {tasks} | {' | '.join(cells)} |"


def held_out(studies: int) -> Iterator[str]:
    """Coverage of the default interval in worlds it was not chosen in."""
    yield "| world | tasks | ARG | points | width of ARG |"
    yield "|---|--:|--:|--:|--:|"
    for name, world in HELD_OUT.items():
        for tasks in (4, 8, 10, 16):
            held, width = coverage(world, tasks, 5, 1, studies=studies, seed=SEED)
            yield f"| {name} | {tasks} | {_share(held[0])} | {_share(held[2])} | {width[0]:.0f} |"


def _share(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.intervals", description=__doc__)
    parser.add_argument("--studies", type=int, default=200, help="studies a row")
    given = parser.parse_args()
    for lines in (compared, held_out):
        for line in lines(given.studies):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
