"""How similar tasks are, whether that predicts gains, and whether following it would have helped.

A similarity is a symmetric table over T tasks, larger where tasks are more similar. Needs ``scipy`` (extra
``analysis``) for matched rows and clustering.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from softstart.errors import SoftstartError

Floats = npt.NDArray[np.float64]


def cosine(vectors: Floats) -> Floats:
    """Cosine between the rows of ``vectors`` [T, D]: [T, T]; 0 for a row of zeros."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1.0)
    return np.asarray(unit @ unit.T, dtype=np.float64)


def prompt_similarity(prompts: Floats, rows: str = "flat") -> Floats:
    """Cosine between soft prompts [T, P, d]: [T, T].

    Args:
        prompts: one prompt a task.
        rows: ``flat``, entry by entry; ``mean``, of the averages over rows; ``matched``, entry by entry after
            the rows of one prompt are put in the order that makes it largest (optimal assignment): prompts
            that differ by the order of their rows are the same.

    Raises:
        SoftstartError: an unknown ``rows``.
    """
    if rows == "flat":
        return cosine(prompts.reshape(len(prompts), -1))
    if rows == "mean":
        return cosine(prompts.mean(axis=1))
    if rows != "matched":
        raise SoftstartError(f"unknown comparison of prompts '{rows}'", fix="Use flat, mean or matched.")
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as problem:
        raise SoftstartError(
            "matching rows needs scipy", fix="pip install 'softstart[analysis]'"
        ) from problem
    norms = np.linalg.norm(prompts, axis=(1, 2))
    cosines = np.eye(len(prompts))
    for i in range(len(prompts)):
        for j in range(i):
            products = prompts[i] @ prompts[j].T
            best = products[linear_sum_assignment(products, maximize=True)].sum()
            cosines[i, j] = cosines[j, i] = best / (norms[i] * norms[j] or 1.0)
    return cosines


def category_agreement(categories: Sequence[str]) -> Floats:
    """Share of leading parts that two category paths ("classification/emotion") have in common: [T, T]."""
    paths = [category.split("/") for category in categories]

    def shared(a: list[str], b: list[str]) -> float:
        same = [x == y for x, y in zip(a, b, strict=False)]
        return float(np.cumprod(same).sum()) / max(len(a), len(b))

    return np.array([[shared(a, b) for b in paths] for a in paths])


def cluster_order(similarity: Floats) -> list[int]:
    """An order of tasks in which similar ones are neighbors: leaves of average-linkage clustering.

    Without scipy the order stays as it is.
    """
    try:
        from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
        from scipy.spatial.distance import squareform
    except ImportError:
        return list(range(len(similarity)))
    if len(similarity) < 3:
        return list(range(len(similarity)))
    distance = squareform(similarity.max() - (similarity + similarity.T) / 2, checks=False)
    return [int(i) for i in leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance))]


def affinity(similarity: pd.DataFrame, source: Sequence[str], target: Sequence[str]) -> pd.Series:
    """How similar each target is to the source tasks: the mean over them, by target.

    Args:
        similarity: tasks by tasks, both axes named.
        source: the source tasks of a setting.
        target: its target tasks.
    """
    return similarity.loc[list(target), list(source)].mean(axis=1)


def rank_correlation(
    x: Sequence[float] | pd.Series,
    y: Sequence[float] | pd.Series,
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Spearman's correlation of two measurements of the same tasks and its two-sided permutation p-value.

    Pairs with a NaN are left out. NaN with fewer than three pairs or where one side is constant. The observed
    order counts among the permutations, so that p is never 0.
    """
    table = pd.DataFrame({"x": list(x), "y": list(y)}).dropna().rank()
    if len(table) < 3 or table.nunique().min() < 2:
        return float("nan"), float("nan")
    a, b = (((c - c.mean()) / c.std(ddof=0)).to_numpy() for c in (table["x"], table["y"]))
    observed = float(a @ b / len(a))
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(b, (permutations, len(b))), axis=1) @ a / len(a)
    hits = int((np.abs(shuffled) >= abs(observed) - 1e-12).sum())
    return observed, (hits + 1) / (permutations + 1)


def small_p_values(correlations: pd.DataFrame, level: float = 0.05) -> tuple[int, int, float]:
    """How many p-values of rank correlations are below a level, and how many chance alone would put there.

    A permutation test of n pairs has no p below 2 / n!, so correlations over too few targets cannot reach the
    level, and chance expects none of them there.

    Args:
        correlations: ``p`` and ``n_tasks`` of each.
        level: the level.

    Returns:
        (p-values below the level, correlations that can get there, how many of these chance puts there).

    >>> import pandas as pd
    >>> small_p_values(pd.DataFrame({"p": [0.01, 0.3, 0.2], "n_tasks": [8, 8, 4]}))
    (1, 2, 0.1)
    """
    known = correlations.dropna(subset="p")
    able = int((2 / known["n_tasks"].map(math.factorial) < level).sum())
    return int((known["p"] < level).sum()), able, level * able


def follow(
    gains: pd.DataFrame,
    affinities: Mapping[str, pd.DataFrame],
    sizes: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """What a recommendation by similarity would have gained, leaving out one target at a time.

    The rule: of the starts that were tried (one a set of source tasks) take the one whose sources are most
    similar to the target. Which measure of similarity to trust is learned from the other targets alone: the
    one whose rule has the highest mean gain there. ``fixed`` is the start that is best on average for the
    others.

    Args:
        gains: targets by starts, in points or percent; NaN where a start was not tried. Targets with fewer
            than two starts are left out.
        affinities: measure → targets by starts.
        sizes: the number of source tasks of each start.

    Returns:
        One row per target: ``task``, ``measure`` and ``start`` followed, ``gain``; to compare with,
        ``random`` (mean over starts), ``fixed``, ``widest`` (mean over the starts with the most source tasks:
        no choice among sources) and ``best`` (the best start in hindsight: an upper bound).

    Raises:
        SoftstartError: fewer than two starts or targets, or no measure.
    """
    gains, picks = _picks(gains, affinities)
    taken = pd.DataFrame(
        {
            name: [gains.at[task, start] for task, start in zip(gains.index, pick, strict=True)]
            for name, pick in picks.items()
        },
        index=gains.index,
    )
    rows = []
    for task in gains.index:
        others, of_task = gains.index != task, gains.loc[task].dropna()
        measure = str(taken[others].mean().idxmax())
        known = gains.loc[others, of_task.index].mean().dropna()
        size = pd.Series(sizes or {}, dtype=float).reindex(of_task.index)
        rows.append(
            {
                "task": task,
                "measure": measure,
                "start": picks[measure][task],
                "gain": float(taken.loc[task, measure]),
                "random": float(of_task.mean()),
                "fixed": float(of_task[known.idxmax()] if len(known) else of_task.mean()),
                "widest": float(of_task[size == size.max()].mean()),
                "best": float(of_task.max()),
            }
        )
    return pd.DataFrame(rows)


def follow_p(
    gains: pd.DataFrame,
    affinities: Mapping[str, pd.DataFrame],
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """How likely ``follow`` gains at least as much where similarity says nothing about gains.

    A paired test over the rows of ``follow`` takes the measure as given, though it was chosen on the same
    targets, and rejects far too often. Here the whole selection is done again in every permutation: targets
    that tried the same starts swap their similarities (those of all measures together), the measure is chosen
    anew for every target left out, and its rule is followed. What a choice is compared with (a random start,
    the one with most sources) does not depend on similarity, so this is the p-value against each of them.

    Args:
        gains: as in ``follow``.
        affinities: as in ``follow``.
        permutations: how many times similarities are swapped; the observed order counts as one more.
        seed: of the permutations.

    Returns:
        One-sided p: small where following gained more than swapped similarities do.

    Raises:
        SoftstartError: as ``follow``.
    """
    gains, picks = _picks(gains, affinities)
    tasks, rng = np.arange(len(gains)), np.random.default_rng(seed)
    swapped = np.tile(tasks, (permutations + 1, 1))  # the first row stays as observed
    for alike in gains.notna().groupby(list(gains.columns)).indices.values():
        swapped[1:, alike] = rng.permuted(np.tile(alike, (permutations, 1)), axis=1)
    # [measures, targets]: the column of the start that each measure names.
    named = np.stack([gains.columns.get_indexer(pd.Index(pick)) for pick in picks.values()])
    taken = gains.to_numpy()[tasks, named[:, swapped]]  # [measures, permutations + 1, targets]
    of_others = taken.sum(axis=-1, keepdims=True) - taken
    chosen = np.round(of_others, 9).argmax(axis=0)
    means = np.take_along_axis(taken, chosen[None], axis=0)[0].mean(axis=-1)
    return float(np.mean(means >= means[0] - 1e-9))


def _picks(
    gains: pd.DataFrame, affinities: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    """The targets that tried several starts, and the start that each measure names for them.

    Raises:
        SoftstartError: fewer than two starts or targets, or no measure.
    """
    gains = gains[gains.notna().sum(axis=1) >= 2]
    if len(gains) < 2 or not affinities:
        raise SoftstartError("a recommendation needs two starts, two targets and a measure of similarity")
    tried = gains.notna()
    return gains, {
        name: table.loc[gains.index, gains.columns].where(tried).idxmax(axis=1)
        for name, table in affinities.items()
    }


def follow_summary(followed: pd.DataFrame) -> pd.DataFrame:
    """Mean gain of following the recommendation against its alternatives, by method.

    Args:
        followed: what ``follow`` returns, of several methods and sets of settings: ``method``, ``settings``
            and ``p``, that of ``follow_p`` (missing in files of older versions, whose p-values did not hold).

    Returns:
        ``settings``, ``method``, ``n_tasks``, ``p``, and the means ``gain``, ``random``, ``fixed``,
        ``widest`` and ``best``.
    """
    rows = []
    for (settings, method), part in followed.groupby(["settings", "method"], sort=False):
        means = {name: part[name].mean() for name in ("gain", "random", "fixed", "widest", "best")}
        p = float(part["p"].iloc[0]) if "p" in part else float("nan")
        rows.append({"settings": settings, "method": method, "n_tasks": len(part), **means, "p": p})
    return pd.DataFrame(rows)
