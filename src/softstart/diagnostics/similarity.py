"""The similarity of a study's tasks, and what it would have been worth to know it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

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
from softstart.diagnostics.task_vectors import encoder_vectors, gradient_vectors
from softstart.errors import SoftstartError
from softstart.gym.task import Task
from softstart.progress import Progress, silent
from softstart.prompt import find_initializer
from softstart.storage.files import atomic
from softstart.study.declare.reading import load_study, variants_of
from softstart.study.declare.spec import MAIN
from softstart.study.plan.inputs import Inputs, Part
from softstart.study.results.folder import prompt_path
from softstart.study.results.stores import open_store
from softstart.study.run.resources import Resources
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import EncodedTask, encode_task
from softstart.training.starts import draw_start

BASELINE = "pt"
UNLEARNED = ("pt", "ft")
"""Methods that no source task has a part in."""

_PACK = 16
"""Prompts tuned together."""


@dataclass(frozen=True)
class Similarities:
    """What ``softstart similarity`` found.

    ``measures`` holds tables tasks by tasks; ``correlations`` one row per measure, setting and method: the
    rank correlation of a target's affinity to the sources with its gain (``rho``, ``p``, ``n_tasks``);
    ``followed`` one row per method and target (``softstart.analysis.similarity.follow``), empty where no
    target is shared by two settings.
    """

    measures: dict[str, pd.DataFrame]
    correlations: pd.DataFrame
    followed: pd.DataFrame
    points: pd.DataFrame
    """``setting``, ``method``, ``measure``, ``task``, ``similarity`` (to the sources), ``gain`` (points)."""


@dataclass(frozen=True)
class Recommendation:
    """Where a task that is new to a study should start.

    ``starts`` has one row per setting, the recommended one first: ``setting``, ``similarity`` of its sources
    to the task, the ``method`` that gained most there, that ``gain`` (points, mean over the targets) and the
    ``init`` file of its first seed. ``sources``: the source tasks with their ``similarity``, nearest first.
    """

    measure: str
    starts: pd.DataFrame
    sources: pd.DataFrame


def similarities(
    folder: Path, device: str | None = None, *, prompt_steps: int = 60, progress: Progress = silent
) -> Similarities:
    """Measure a study's tasks and relate their similarity to its gains; writes ``similarity.json``.

    Args:
        folder: a study folder with results.
        device: where to compute.
        prompt_steps: how long a prompt of every task, source or target, is tuned for the cosines between
            prompts; 0 leaves these out.
        progress: told the number of run-steps done while these prompts are tuned.

    Raises:
        SoftstartError: no study, no results, or its gym or backbone are not there.
    """
    resources, parts, rows = _opened(folder, device)
    names = sorted({name for part in parts for name in (*part.source, *part.target)})
    tasks = [resources.encoded(MAIN, name) for name in names]
    vectors = _measures(resources, names, tasks, prompt_steps, progress)
    measures = {name: pd.DataFrame(values, names, names) for name, values in vectors.items()}
    measures["category"] = pd.DataFrame(
        category_agreement([resources.task(MAIN, name).category for name in names]), names, names
    )
    gains = relative_gains(rows, BASELINE)
    points = _points(measures, parts, gains)
    found = Similarities(measures, _correlations(points), _followed(measures, parts, gains), points)
    with atomic(folder / "similarity.json") as temporary:
        temporary.write_text(json.dumps(_plain(found)), encoding="utf-8")
    return found


def recommend(folder: Path, task: Task, device: str | None = None) -> Recommendation:
    """Which start of a study a new task should take: the one whose sources are most similar to it.

    By the measure whose rule gained most on the study's own targets where ``similarities`` could judge that,
    else by gradients.

    Args:
        folder: a study folder with results.
        task: the new task; its first sample is looked at.
        device: where to compute.

    Raises:
        SoftstartError: as ``similarities``, or the study learned no start.
    """
    resources, parts, rows = _opened(folder, device)
    study, backbone = resources.studies[MAIN], resources.backbone(MAIN)
    names = sorted({name for part in parts for name in part.source})
    learned = rows[~rows["method"].isin(UNLEARNED)]
    if not names or learned.empty:
        raise SoftstartError("the study learned no start", where=str(folder))
    known = folder / "similarity.json"
    followed = json.loads(known.read_text(encoding="utf-8"))["followed"] if known.exists() else []
    trusted = [str(row["measure"]) for row in followed if row["measure"] in ("gradient", "inputs", "outputs")]
    measure = max(sorted(set(trusted)), key=trusted.count) if trusted else "gradient"
    encoded = [resources.encoded(MAIN, name) for name in names]
    samples = [_sample(resources)] * len(names)
    new = encode_task(task, backbone, study.text)
    vectors = _vectors(resources, measure, [*encoded, new], [*samples, next(iter(new.train))])
    similar = pd.Series(cosine(vectors)[-1, :-1], names)
    with open_store(folder, readonly=True) as store:
        init = {key: str(row["start"]) for key, row in store.runs().items()}
    gains = relative_gains(rows, BASELINE)
    found = []
    for part in parts:
        of_part = gains[(gains["setting"] == part.setting) & ~gains["method"].isin(UNLEARNED)]
        mean = of_part.groupby("method")["abs_gain"].mean().dropna()
        if len(mean):
            method = str(mean.idxmax())
            runs = learned[(learned["setting"] == part.setting) & (learned["method"] == method)]
            file = prompt_path(folder, init[str(runs.sort_values("seed")["run"].iloc[0])])
            likeness = float(similar[list(part.source)].mean())
            found.append((part.setting, likeness, method, float(mean[method]), str(file)))
    starts = pd.DataFrame(found, columns=["setting", "similarity", "method", "gain", "init"])
    sources = similar.sort_values(ascending=False).rename_axis("task").reset_index(name="similarity")
    return Recommendation(
        measure, starts.sort_values("similarity", ascending=False, ignore_index=True), sources
    )


def _opened(folder: Path, device: str | None) -> tuple[Resources, list[Part], pd.DataFrame]:
    """A study's resources, the parts of its main variant, and its results at the largest budget."""
    study = load_study(folder / "study.yaml")
    resources = Resources(variants_of(study), device)
    with open_store(folder, readonly=True) as store:
        parts = [part for part in Inputs.from_json(store.inputs()).parts if part.variant == MAIN]
    rows = with_defaults(_results(folder))
    return resources, parts, largest_budget(rows[rows["variant"] == MAIN])


def _results(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / "results.csv")
    except (OSError, ValueError) as problem:
        raise SoftstartError(
            f"there is no result yet ({problem})", where=str(folder), fix="Run the study."
        ) from problem


def _measures(
    resources: Resources,
    names: list[str],
    tasks: list[EncodedTask],
    prompt_steps: int,
    progress: Progress,
) -> dict[str, Floats]:
    samples = [_sample(resources)] * len(tasks)
    found = {
        measure: cosine(_vectors(resources, measure, tasks, samples))
        for measure in ("gradient", "inputs", "outputs")
    }
    if prompt_steps:
        start, prompts = _prompts(resources, names, tasks, samples, prompt_steps, progress)
        found["prompt, flat"] = prompt_similarity(prompts - start)
        found["prompt, mean"] = prompt_similarity(prompts - start, "mean")
        if find_spec("scipy"):
            found["prompt, matched"] = prompt_similarity(prompts, "matched")
    return found


def _sample(resources: Resources) -> int:
    study = resources.studies[MAIN]
    return (study.source_samples or study.samples)[0]


def _start(resources: Resources) -> torch.Tensor:
    """The start [P, d] that all tasks are looked at from."""
    study = resources.studies[MAIN]
    spec = study.prompt
    if find_initializer(spec.init)[0].needs in ("names", "labels"):  # those of one task favor it
        spec = spec.model_copy(update={"init": "vocabulary"})
    return draw_start(resources.backbone(MAIN), spec, (), study.meta_seeds[0])


def _vectors(
    resources: Resources, measure: str, tasks: Sequence[EncodedTask], samples: Sequence[int]
) -> Floats:
    backbone = resources.backbone(MAIN)
    if measure == "gradient":
        return gradient_vectors(backbone, _start(resources), tasks, samples)
    states = encoder_vectors(backbone, tasks, samples, measure)
    # They share a large common direction that would make every cosine near 1.
    return np.asarray(states - states.mean(axis=0), dtype=np.float64)


def _prompts(
    resources: Resources,
    names: list[str],
    tasks: Sequence[EncodedTask],
    samples: Sequence[int],
    steps: int,
    progress: Progress,
) -> tuple[Floats, Floats]:
    """The shared start [P, d] and the prompt [T, P, d] that each task was tuned to from it."""
    study, backbone, start = resources.studies[MAIN], resources.backbone(MAIN), _start(resources)
    config = AdaptConfig(
        steps=steps,
        batch_size=study.adaptation.batch_size,
        eval_every=steps,
        eval_start=False,
        select="last",
        optimizer=study.adaptation.optimizer,
        max_tokens=study.adaptation.max_tokens,
    )
    lr, found = study.learning_rates[0], []
    runs = [AdaptRun(start, task, sample, lr) for task, sample in zip(tasks, samples, strict=True)]
    for first in range(0, len(runs), _PACK):
        pack = adapt(backbone, runs[first : first + _PACK], config, study.evaluation, progress=progress)
        found += [result.prompt for result in pack]
    if lost := next(
        (name for name, prompt in zip(names, found, strict=True) if not prompt.isfinite().all()), None
    ):
        raise SoftstartError(
            f"tuning a prompt for '{lost}' diverged", fix="Leave prompts out: --prompt-steps 0."
        )
    return start.double().numpy(), torch.stack(found).double().cpu().numpy()


def _affinities(measures: dict[str, pd.DataFrame], part: Part) -> dict[str, pd.Series]:
    return {name: affinity(table, part.source, part.target) for name, table in measures.items()}


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
    parts = [part for part in parts if part.source]
    sizes = {part.setting: len(part.source) for part in parts}
    of_part = {part.setting: _affinities(measures, part) for part in parts}
    tables = {measure: pd.DataFrame({s: of_part[s][measure] for s in of_part}) for measure in measures}
    found = []
    for method, of_method in gains[~gains["method"].isin(UNLEARNED)].groupby("method"):
        wide = of_method.pivot(index="task", columns="setting", values="abs_gain")
        shared = wide[wide.notna().sum(axis=1) >= 2].dropna(axis=1, how="all")
        if len(shared) > 1:
            of_shared = {m: table.reindex(shared.index) for m, table in tables.items()}
            followed = follow(shared, of_shared, sizes)
            found.append(followed.assign(method=method, settings=", ".join(shared.columns)))
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
