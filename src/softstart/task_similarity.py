"""The similarity of a study's tasks, and what it would have been worth to know it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from softstart.analysis import largest_budget, relative_gains, with_defaults
from softstart.analysis.similarity import (
    Floats,
    affinity,
    category_agreement,
    cosine,
    follow,
    prompt_similarity,
    rank_correlation,
)
from softstart.errors import SoftstartError
from softstart.files import atomic
from softstart.prompt import SoftPrompt
from softstart.study.plan import Inputs, Part
from softstart.study.prepare import Resources
from softstart.study.spec import MAIN, load_study, variants_of
from softstart.study.starts import draw_start
from softstart.study.store import Store
from softstart.task_vectors import encoder_vectors, gradient_vectors

BASELINE = "pt"
UNLEARNED = ("pt", "ft")
"""Methods that no source task has a part in."""


@dataclass(frozen=True)
class Similarities:
    """What ``softstart similarity`` found.

    ``measures`` holds tables tasks by tasks; ``correlations`` one row per measure, setting and method: the
    rank correlation of a target's affinity to the sources with its gain (``rho``, ``p``, ``n_tasks``);
    ``followed`` one row per method and target (``softstart.analysis.similarity.follow``), empty where no
    targets are shared by two settings.
    """

    measures: dict[str, pd.DataFrame]
    correlations: pd.DataFrame
    followed: pd.DataFrame
    points: pd.DataFrame
    """``setting``, ``method``, ``measure``, ``task``, ``similarity`` (to the sources), ``gain`` (points)."""


def similarities(folder: Path, device: str | None = None) -> Similarities:
    """Measure a study's tasks and relate their similarity to its gains; writes ``similarity.json``.

    Args:
        folder: a study folder with results.
        device: where to compute.

    Raises:
        SoftstartError: no study, no results, or its gym or backbone are not there.
    """
    study = load_study(folder / "study.yaml")
    resources = Resources(variants_of(study), device)
    with Store(folder, readonly=True) as store:
        parts = [part for part in Inputs.from_json(store.inputs()).parts if part.variant == MAIN]
    rows = with_defaults(_results(folder))
    rows = largest_budget(rows[rows["variant"] == MAIN])
    names = sorted({name for part in parts for name in (*part.source, *part.target)})
    measures = {k: pd.DataFrame(v, names, names) for k, v in _measures(resources, names).items()}
    measures |= _of_prompts(folder, rows)
    gains = relative_gains(rows, BASELINE)
    points = _points(measures, parts, gains)
    found = Similarities(measures, _correlations(points), _followed(measures, parts, gains), points)
    with atomic(folder / "similarity.json") as temporary:
        temporary.write_text(json.dumps(_plain(found)), encoding="utf-8")
    return found


def _results(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / "results.csv")
    except (OSError, ValueError) as problem:
        raise SoftstartError(
            f"there is no result yet ({problem})", where=str(folder), mend="Run the study."
        ) from problem


def _measures(resources: Resources, names: list[str]) -> dict[str, Floats]:
    study, backbone = resources.studies[MAIN], resources.backbone(MAIN)
    tasks = [resources.encoded(MAIN, name) for name in names]
    sample = (study.source_samples or study.samples)[0]
    start = draw_start(backbone, study.prompt, names, study.meta_seeds[0])
    return {
        "gradient": cosine(gradient_vectors(backbone, start, tasks, sample)),
        "inputs": cosine(_centered(encoder_vectors(backbone, tasks, sample, "inputs"))),
        "outputs": cosine(_centered(encoder_vectors(backbone, tasks, sample, "outputs"))),
        "category": category_agreement([resources.task(MAIN, name).category for name in names]),
    }


def _centered(vectors: Floats) -> Floats:
    """Encoder states share a large common direction that would make every cosine near 1."""
    return np.asarray(vectors - vectors.mean(axis=0), dtype=np.float64)


def _of_prompts(folder: Path, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Cosines between the prompts that plain prompt tuning learned for the targets, from one start each."""
    pt = rows[rows["method"] == BASELINE].drop_duplicates("task").sort_values("task")
    paths = {str(r.task): folder / "prompts" / f"{r.run}.safetensors" for r in pt.itertuples()}
    if len(paths) < 2 or not all(path.exists() for path in paths.values()):
        return {}
    prompts = np.stack([SoftPrompt.load(path).tensor.double().numpy() for path in paths.values()])
    names = list(paths)
    return {
        f"prompt, {how}": pd.DataFrame(prompt_similarity(prompts, how), names, names)
        for how in ("flat", "mean", "matched")
    }


def _affinities(measures: dict[str, pd.DataFrame], part: Part) -> dict[str, pd.Series]:
    return {
        name: affinity(table, part.source, part.target)
        for name, table in measures.items()
        if {*part.source, *part.target} <= set(table.index)
    }


def _points(measures: dict[str, pd.DataFrame], parts: list[Part], gains: pd.DataFrame) -> pd.DataFrame:
    """Every target's affinity to the sources of its setting beside the gain of every learned start."""
    found = []
    for part in parts:
        of_setting = gains[(gains["setting"] == part.setting) & ~gains["method"].isin(UNLEARNED)]
        for method, of_method in of_setting.groupby("method"):
            gain = of_method.set_index("task")["abs_gain"].reindex(part.target)
            for measure, values in _affinities(measures, part).items():
                found += [(part.setting, method, measure, t, values[t], gain[t]) for t in part.target]
    return pd.DataFrame(found, columns=["setting", "method", "measure", "task", "similarity", "gain"])


def _correlations(points: pd.DataFrame) -> pd.DataFrame:
    found = []
    for key, part in points.groupby(["setting", "method", "measure"], sort=False):
        rho, p = rank_correlation(part["similarity"], part["gain"])
        found.append((*key, rho, p, int(part["gain"].notna().sum())))
    return pd.DataFrame(found, columns=["setting", "method", "measure", "rho", "p", "n_tasks"])


def _followed(measures: dict[str, pd.DataFrame], parts: list[Part], gains: pd.DataFrame) -> pd.DataFrame:
    """Which setting's start to take for a target that several settings share."""
    found = []
    for target in dict.fromkeys(part.target for part in parts):
        sharing = [part for part in parts if part.target == target and part.source]
        if len(sharing) < 2:
            continue
        names = [part.setting for part in sharing]
        of_part = [_affinities(measures, part) for part in sharing]
        tables = {m: pd.DataFrame([a[m] for a in of_part], names).T for m in of_part[0]}
        here = gains[gains["setting"].isin(names) & ~gains["method"].isin(UNLEARNED)]
        for method, of_method in here.groupby("method"):
            wide = of_method.pivot(index="task", columns="setting", values="abs_gain").dropna()
            if wide.shape[1] > 1 and len(wide) > 1:
                found.append(follow(wide, tables).assign(method=method, settings=", ".join(names)))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _plain(found: Similarities) -> dict[str, Any]:
    return {
        "measures": {
            name: {"tasks": list(table.index), "values": table.round(4).to_numpy().tolist()}
            for name, table in found.measures.items()
        },
        "correlations": json.loads(found.correlations.to_json(orient="records")),
        "points": json.loads(found.points.round(4).to_json(orient="records")),
        "followed": json.loads(found.followed.to_json(orient="records")),
    }
