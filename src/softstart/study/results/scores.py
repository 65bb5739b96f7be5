"""The test scores of one prompt of a study, for the prompt's model card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from softstart.analysis import largest_budget, with_defaults
from softstart.analysis.resampling import dense, intervals, task_means
from softstart.analysis.units import points
from softstart.storage.csv_files import read_csv
from softstart.study.results.folder import RESULTS
from softstart.study.results.store import NothingRun
from softstart.study.results.stores import open_store


def scores_in_study(prompt: Path) -> list[dict[str, Any]]:
    """Test scores of a prompt in its study folder, or of what was tuned from it if it is a start.

    Args:
        prompt: a file under ``prompts/`` of a study folder; any other gives no scores.

    Returns:
        One entry per target task, as model cards hold them: ``task``, ``metric``, ``score`` (mean over
        samples, in points), with several samples ``over`` and, with three runs or more, ``low`` and
        ``high`` (bounds of a 95 % interval, in points).
    """
    folder = prompt.parent.parent
    if not (folder / RESULTS).is_file():
        return []
    try:
        with open_store(folder, readonly=True) as store:
            of_prompt = {key for key, row in store.runs().items() if prompt.stem in (key, row["start"])}
    except NothingRun:
        return []
    rows = largest_budget(with_defaults(read_csv(folder / RESULTS)))
    tested = rows[rows["run"].isin(of_prompt)].dropna(subset="test")
    scores = []
    for (task, metric), runs in tested.groupby(["task", "metric"]):
        entry = {"task": str(task), "metric": str(metric), "score": points(float(runs["test"].mean()))}
        ((low, high),) = intervals(dense(runs, ["test"]), lambda v: task_means(v)[0].T)
        if len(runs) > 1:
            entry["over"] = f"{runs['sample'].nunique()} samples"
        if not math.isnan(low):
            entry |= {"low": points(float(low)), "high": points(float(high))}
        scores.append(entry)
    return scores
