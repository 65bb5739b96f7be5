"""How often an interval holds the truth, in simulated studies whose truth is known.

``python -m softstart.analysis.coverage`` prints the table of docs/concepts/intervals.md. A world says how
baselines, gains and noise are distributed; a study of it is a draw of tasks, few-shot samples and meta seeds;
the truth is the mean over infinitely many tasks and seeds without noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from softstart.analysis.arg import gain_statistics, symmetric
from softstart.analysis.resampling import DEFAULT_INTERVAL, INTERVALS, Floats, intervals

STATISTICS = ("ARG", "median", "points", "symmetric")
"""What ``coverage`` measures: the numbers of ``softstart.analysis.arg.gain_statistics``."""


@dataclass(frozen=True)
class World:
    """How the scores of simulated studies are distributed; all scores are fractions.

    A task's baseline is uniform between ``low`` and ``high`` (log-uniform if ``heavy``, so that some are near
    zero). Its gain is normal with mean ``gain`` and standard deviation ``spread``, and never takes more than
    nine tenths of the baseline. Every run has normal noise of standard deviation ``noise`` (times the
    baseline, if ``heavy``); every meta seed moves the method on all tasks by a normal effect of standard
    deviation ``seed_effect``.
    """

    low: float
    high: float
    gain: float = 0.03
    spread: float = 0.05
    noise: float = 0.03
    seed_effect: float = 0.0
    heavy: bool = False

    def tasks(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Baselines and gains of ``n`` tasks, without noise: [n] and [n]."""
        if self.heavy:
            baseline = np.exp(rng.uniform(np.log(self.low), np.log(self.high), n))
        else:
            baseline = rng.uniform(self.low, self.high, n)
        return baseline, np.maximum(rng.normal(self.gain, self.spread, n), -0.9 * baseline)

    def study(self, tasks: int, samples: int, seeds: int, rng: np.random.Generator) -> Floats:
        """Scores of method and baseline in one study: [2, tasks, samples, seeds]."""
        baseline, gain = self.tasks(tasks, rng)
        runs = (tasks, samples, seeds)
        scale = self.noise * (baseline[:, None, None] if self.heavy else 1.0)
        of_seed = rng.normal(0, 1, (1, 1, seeds)) * self.seed_effect
        method = (baseline + gain)[:, None, None] + rng.normal(0, 1, runs) * scale + of_seed
        return np.stack([method, np.maximum(baseline[:, None, None] + rng.normal(0, 1, runs) * scale, 1e-3)])

    def truth(self) -> Floats:
        """ARG, median gain (percent), mean gain (points) and mean symmetric gain (percent) over two million
        tasks: [4].
        """
        baseline, gain = self.tasks(2_000_000, np.random.default_rng(0))
        ratio = 100 * gain / baseline
        bounded = symmetric(baseline + gain, baseline)
        return np.array([ratio.mean(), np.median(ratio), 100 * gain.mean(), bounded.mean()])


WORLDS = {
    "light": World(low=0.3, high=0.8),
    "no gain": World(low=0.3, high=0.8, gain=0.0),
    "heavy": World(low=0.015, high=0.8, noise=0.15, heavy=True),
    "near zero": World(low=0.002, high=0.8, noise=0.15, heavy=True),
    "seed effect": World(low=0.3, high=0.8, seed_effect=0.05),
}
"""The worlds of the table: ``light`` relative gains of a few percent; ``heavy`` ones, up to several hundred
percent where the baseline is weak; baselines down to two thousandths; meta seeds that differ by 5 points."""

DESIGNS = (
    *(("light", tasks, 5, 1) for tasks in (4, 8, 10, 16)),
    ("light", 8, 2, 3),
    *(("no gain", tasks, 5, 1) for tasks in (4, 8)),
    *(("heavy", tasks, 5, 1) for tasks in (4, 8, 10, 16)),
    *(("near zero", tasks, 5, 1) for tasks in (8, 16)),
    *(("seed effect", 8, 3, seeds) for seeds in (1, 2, 3, 5)),
)
"""World, tasks, samples and meta seeds of every row of the table."""


def coverage(
    world: World,
    tasks: int,
    samples: int,
    seeds: int,
    *,
    interval: str = DEFAULT_INTERVAL,
    studies: int = 200,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """The share of intervals that hold the truth, and their median width, for each of ``STATISTICS``.

    With p the coverage, the share has a standard error of sqrt(p (1 - p) / studies).

    Args:
        world: what studies are drawn from.
        tasks: target tasks of a study.
        samples: few-shot samples of a task.
        seeds: meta-training seeds.
        interval: a name in ``INTERVALS``, or an import path.
        studies: how many are drawn.
        resamples: draws of an interval.
        seed: of the studies; equal seeds give every kind of interval the same ones.

    Returns:
        Coverage [4] and width [4]; NaN where there is no interval.

    Raises:
        SoftstartError: there is no such interval.
    """
    truth = world.truth()
    drawn = [
        intervals(
            world.study(tasks, samples, seeds, np.random.default_rng([seed, study, tasks, seeds])),
            gain_statistics,
            interval=interval,
            resamples=resamples,
            seed=study,
        )
        for study in range(studies)
    ]
    ends = np.stack(drawn)
    held = np.where(np.isnan(ends).any(axis=-1), np.nan, (ends[..., 0] <= truth) & (truth <= ends[..., 1]))
    return held.mean(axis=0), np.median(ends[..., 1] - ends[..., 0], axis=0)


def table(names: Sequence[str], studies: int, seed: int) -> Iterator[str]:
    """The lines of a Markdown table of the coverage of several kinds of interval in ``DESIGNS``."""
    shares, widths = " | ".join(STATISTICS), "width of ARG | of points"
    yield f"| world | tasks | samples | seeds | interval | {shares} | {widths} |"
    yield "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|"
    for world, tasks, samples, seeds in DESIGNS:
        for name in names:
            held, width = coverage(
                WORLDS[world], tasks, samples, seeds, interval=name, studies=studies, seed=seed
            )
            shares = " | ".join(f"{share:.3f}".removeprefix("0") for share in held)
            yield (
                f"| {world} | {tasks} | {samples} | {seeds} | {name} | {shares} | {width[0]:.1f} | "
                f"{width[2]:.1f} |"
            )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m softstart.analysis.coverage", description=__doc__)
    parser.add_argument("--intervals", nargs="+", default=[*INTERVALS], help="default: all of them")
    parser.add_argument("--studies", type=int, default=500, help="studies a row")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for line in table(given.intervals, given.studies, given.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
