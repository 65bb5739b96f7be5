"""Choose the rates of the real study from its pilot, and write them into its study files.

    softstart run studies/real-rates-plain.yaml --gym path/to/gym
    python -m benchmarks.real.rates runs/real-rates-plain                    # the adaptation's rate
    softstart run studies/real-rates.yaml --gym path/to/gym
    python -m benchmarks.real.rates runs/real-rates-plain runs/real-rates    # the rates of learned methods

The rule, declared before the pilot: the adaptation's learning rate is the one with the highest mean best
dev score of plain prompt tuning up to 100 steps over the held-out source tasks. The outer rate (and the inner
rate) of a learned method is the one with the highest mean best dev score up to 30 steps over the same tasks,
at that learning rate. Ties go to the smaller rate. Only dev rows of source tasks are read.

Writes benchmarks/real/rates.json and the rates in studies/real-*.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

HERE = Path(__file__).resolve().parent
STUDIES = HERE.parents[1] / "studies"


def best_dev(curves: pd.DataFrame, steps: int) -> pd.DataFrame:
    """The best dev score of every run up to a number of steps, a row each."""
    seen = curves[curves["step"] <= steps]
    keys = ["method", "task", "lr", "sample", "seed"]
    return seen.groupby(keys, as_index=False)["dev"].max()


def chosen(plain: pd.DataFrame, learned: pd.DataFrame | None = None) -> dict[str, Any]:
    """The rates that the rule chooses, with the means they were chosen by.

    Args:
        plain: the learning curves of plain prompt tuning.
        learned: those of the learned starts and of a plain one; None: they have not been run.
    """
    by_rate = best_dev(plain, 100).groupby("lr")["dev"].mean()
    rates = {"learning_rates": [_first_best((rate, by_rate[rate]) for rate in sorted(by_rate.index))]}
    means = {"pt": {str(rate): float(value) for rate, value in by_rate.items()}}
    if learned is None:
        return {**rates, "mean_dev": means}
    early = best_dev(learned, 30).groupby(["method", "task"], as_index=False)["dev"].max()
    scores = early.groupby("method")["dev"].mean().to_dict()
    methods: dict[str, dict[str, float]] = {}
    for kind in ("multitask", "fomaml", "maml", "reptile"):
        names = sorted((name for name in scores if name.split("-")[0] == kind), key=_rates)
        name = _first_best((name, scores[name]) for name in names)
        *inner, outer = _rates(name)
        methods[kind] = {"lr": outer, **({"inner_lr": inner[0]} if inner else {})}
    by_task = early.set_index(["method", "task"])["dev"]
    plain_start = by_task["pt"]
    spread = {kind: _power(by_task[_name(kind, values)] - plain_start) for kind, values in methods.items()}
    return {
        **rates,
        "methods": methods,
        "power": spread,
        "mean_dev": {**means, "pt at 30 steps": scores.pop("pt"), **scores},
    }


def _name(kind: str, values: dict[str, float]) -> str:
    rates = [values["inner_lr"]] if "inner_lr" in values else []
    return "-".join(map(str, (kind, *rates, values["lr"])))


def _power(gains: pd.Series) -> dict[str, float]:
    """The spread of gains over tasks (dev, in points, at 30 steps), and how many tasks 3 points need.

    By the normal approximation: (1.96 + .84)^2 sd^2 / 3^2 tasks for a power of .8 at the 5 % level.
    """
    spread = 100 * float(gains.std(ddof=1))
    return {"sd_points": round(spread, 2), "tasks_for_3_points": math.ceil(2.8**2 * spread**2 / 9)}


def _rates(name: str) -> tuple[float, ...]:
    return tuple(map(float, name.split("-", 1)[1].split("-")))


def _first_best(pairs: Iterable[tuple[Any, float]]) -> Any:
    """The name with the highest value; the first of equal ones."""
    best: tuple[Any, float] | None = None
    for name, value in pairs:
        if best is None or value > best[1]:
            best = (name, value)
    assert best is not None
    return best[0]


def fill(file: Path, rates: dict[str, Any]) -> None:
    """Write the rates into a study file."""
    text = file.read_text(encoding="utf-8")
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    declared = yaml.safe_load(text)
    declared["learning_rates"] = rates["learning_rates"]
    for name, values in rates.get("methods", {}).items():
        declared["methods"][name] |= values
    body = yaml.safe_dump(declared, sort_keys=False, default_flow_style=None, width=110)
    file.write_text(head + body, encoding="utf-8")


def main(*folders: Path, studies: Path = STUDIES, out: Path = HERE / "rates.json") -> None:
    """Choose and write."""
    rates = chosen(*(pd.read_csv(folder / "curves.csv") for folder in folders))
    out.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
    for file in [*sorted(studies.glob("real-*2cls.yaml")), studies / "real-rates.yaml"]:
        fill(file, {"learning_rates": rates["learning_rates"]} if file.stem == "real-rates" else rates)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
