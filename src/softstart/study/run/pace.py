"""How fast a study runs, and from that how long the rest of it takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from softstart.analysis.units import points
from softstart.progress import Tally
from softstart.study.plan.plan import Plan
from softstart.study.run.work_graph import Unit


class Pace:
    """Counts rows and seconds of each kind of work: a row of one kind can take many times as long as another.

    Args:
        plan: the study.
        units: the work to do.
        runs: finished runs by key, kept up to date by the caller.
    """

    def __init__(self, plan: Plan, units: Iterable[Unit], runs: Mapping[str, Mapping[str, Any]]) -> None:
        self.left: dict[str, float] = defaultdict(float)
        for unit in units:
            self.left[unit.kind] += unit.cost
        self.tasks = {run.key: run.task for run in plan.runs}
        self.best: dict[str, float] = {}
        self.runs = self.tokens = 0
        self.finished(runs.values())
        self.tokens = 0
        self.rows: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, float] = defaultdict(float)
        self.began = time.monotonic()
        self.since: dict[int, float] = {}

    def begin(self, item: object) -> None:
        """Note that a piece of work is handed out."""
        self.since[id(item)] = time.monotonic()

    def computed(self, item: object, kind: str, rows: float) -> None:
        """Count rows of a piece of work, computed since it was handed out or since the last call."""
        now = time.monotonic()
        spent, self.since[id(item)] = now - self.since[id(item)], now
        if rows > 0:
            self.rows[kind] += rows
            self.seconds[kind] += spent

    def finished(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count meta-trainings or runs that are in the store."""
        for row in rows:
            self.tokens += row.get("computed_tokens") or row.get("tokens") or 0
            if row["key"] in self.tasks:
                self.runs += 1
                dev, task = row["dev"], self.tasks[row["key"]]
                if dev is not None and dev == dev:
                    self.best[task] = max(dev, self.best.get(task, dev))

    def seconds_left(self, slots: int) -> float | None:
        """Seconds that the rest takes on ``slots`` workers; None while most of it is of kinds never seen."""
        left = {kind: max(0.0, rows) for kind, rows in self.left.items()}
        unseen = sum(rows for kind, rows in left.items() if not self.rows[kind])
        if (
            not sum(self.rows.values())
            or unseen > sum(left.values()) / 2
            or time.monotonic() - self.began < 2
        ):
            return None
        mean = sum(self.seconds.values()) / sum(self.rows.values())
        rates = {kind: self.seconds[kind] / rows for kind, rows in self.rows.items() if rows}
        return sum(rows * rates.get(kind, mean) for kind, rows in left.items()) / slots

    def tally(self, slots: int) -> Tally:
        """Where the study stands, for display."""
        spent = max(time.monotonic() - self.began, 1.0)
        best = points(sum(self.best.values()) / len(self.best)) if self.best else None
        return Tally(self.runs, len(self.tasks), self.tokens / spent, best, self.seconds_left(slots))
