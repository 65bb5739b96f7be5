"""What a study found out about one of its prompts, for the prompt's model card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis import largest_budget, with_defaults
from softstart.analysis.resampling import dense, percentile_intervals, task_means
from softstart.study.results.stores import open_store


def scores_in_study(prompt: Path) -> list[dict[str, Any]]:
    """Test scores of a prompt in its study folder, or of what was tuned from it if it is a start.

    Args:
        prompt: a file under ``prompts/`` of a study folder; any other gives no scores.

    Returns:
        One entry per target task: ``task``, ``metric``, ``score`` (points, mean over samples) and, with
        several samples, ``low``, ``high`` (95 % bootstrap interval) and ``over``.
    """
    folder = prompt.parent.parent
    if not (folder / "study.db").is_file() or not (folder / "results.csv").is_file():
        return []
    with open_store(folder, readonly=True) as store:
        own = {key for key, row in store.runs().items() if prompt.stem in (key, row["start"])}
    rows = largest_budget(with_defaults(pd.read_csv(folder / "results.csv")))
    found = []
    for (task, metric), runs in rows[rows["run"].isin(own)].dropna(subset="test").groupby(["task", "metric"]):
        told = {"task": str(task), "metric": str(metric), "score": 100 * float(runs["test"].mean())}
        ((low, high),) = percentile_intervals(dense(runs, ["test"]), lambda v: task_means(v)[0].T)
        if not math.isnan(low):
            told |= {"low": 100 * low, "high": 100 * high, "over": f"{runs['sample'].nunique()} samples"}
        found.append(told)
    return found
