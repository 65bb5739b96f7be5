"""The published study's results, and how far ours agree with them.

``published.tsv`` holds test scores (fractions, four decimals) of every cell, task and few-shot sample that
the authors of Qin, Li, Zhao and Joty (ACL 2023, arXiv:2302.08143) left in their result files;
``docs/paper.md`` says how they were read. Numbers only.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import pandas as pd

from softstart.analysis.arg import relative_gains

_NAMES = ["setting", "method", "backbone", "prompt_length", "variant", "task", "shots"]
_LEAST = 3
"""With fewer common tasks a rank correlation is meaningless."""


@cache
def published() -> pd.DataFrame:
    """The published results, one row per run, with the columns of ``softstart.analysis.arg``."""
    with (resources.files("softstart.analysis") / "published.tsv").open(encoding="utf-8") as file:
        wide = pd.read_csv(file, sep="\t")
    rows = wide.melt(_NAMES, var_name="sample", value_name="test").dropna(subset="test")
    return rows.astype({"sample": int}).reset_index(drop=True)


def agreement(gains: pd.DataFrame, baseline: str = "pt", *, backbone: str = "t5-large") -> pd.DataFrame:
    """Our gains and the published ones, wherever setting, method and task are the same.

    Args:
        gains: what ``relative_gains`` returns for our results, at one budget.
        baseline: the method gains are relative to.
        backbone: the published backbone to compare with (main protocol).

    Returns:
        One row per setting and method with tasks in common: ``setting``, ``method``, ``arg`` and
        ``arg_published`` over these tasks (percent), ``n_tasks``, ``same_sign`` (share of them), ``rank``
        (correlation of the ranks of the gains; NaN under three tasks). Empty without a common setting.
    """
    theirs = published()
    theirs = theirs[(theirs["variant"] == "main") & (theirs["backbone"] == backbone)]
    theirs = theirs[theirs["setting"].isin(gains["setting"])]
    columns = ["setting", "method", "arg", "arg_published", "n_tasks", "same_sign", "rank"]
    if theirs.empty or baseline not in set(theirs["method"]):
        return pd.DataFrame(columns=columns)
    key = ["setting", "method", "task"]
    both = gains.merge(relative_gains(theirs, baseline), on=key, suffixes=("", "_published"))
    both = both[both["method"] != baseline].dropna(subset=["gain", "gain_published"])
    rows = []
    for (setting, method), cell in both.groupby(["setting", "method"], sort=False):
        ours, other = cell["gain"], cell["gain_published"]
        same = float(((ours > 0) == (other > 0)).mean())
        rank = float(ours.rank().corr(other.rank())) if len(cell) >= _LEAST else float("nan")
        rows.append((setting, method, ours.mean(), other.mean(), len(cell), same, rank))
    return pd.DataFrame(rows, columns=columns)
