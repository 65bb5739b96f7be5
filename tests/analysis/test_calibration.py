"""Means of calibration over tasks, with intervals; nothing where nothing was ranked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from softstart.analysis import calibration_table


def rows():
    rng = np.random.default_rng(0)
    table = [
        {"method": method, "task": f"t{task}", "sample": sample, "test": 0.5,
         "ece": 0.1 * task + rng.uniform(0, 0.02), "accuracy": 0.5, "accuracy_at_half": 0.75}
        for method in ("pt", "maml") for task in range(5) for sample in (13, 21)
    ]  # fmt: skip
    table.append({"method": "pt", "task": "free", "sample": 13, "test": 0.2})
    return pd.DataFrame(table)


def test_means_are_over_tasks_and_lie_in_their_intervals():
    table = calibration_table(rows()).set_index("method")
    of_tasks = rows().dropna().groupby(["method", "task"])["ece"].mean().groupby("method").mean()
    for method in ("pt", "maml"):
        row = table.loc[method]
        assert row["ece"] == pytest.approx(of_tasks[method])
        assert row["ece_low"] < row["ece"] < row["ece_high"]
        assert (row["accuracy"], row["accuracy_at_half"], row["n_tasks"]) == (0.5, 0.75, 5)


def test_generated_scores_have_none():
    assert calibration_table(rows().drop(columns=["ece"])).empty
    assert calibration_table(rows().assign(ece=np.nan)).empty
