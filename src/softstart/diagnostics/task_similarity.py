"""The similarity of a study's tasks, and what it would have been worth to know it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from softstart.analysis.similarity import cosine
from softstart.diagnostics.gains_by_similarity import correlations, followed, similarity_and_gain
from softstart.diagnostics.studied_tasks import StudiedTasks, open_studied
from softstart.diagnostics.task_measures import BY_VECTOR, measure_tasks, task_vectors
from softstart.errors import SoftstartError
from softstart.gym.task import Task
from softstart.progress import Progress, silent
from softstart.storage.files import atomic
from softstart.study.results.folder import SIMILARITY, prompt_path
from softstart.study.results.similarity_file import read_similarity
from softstart.study.results.stores import open_store
from softstart.training.encoding import encode_task


@dataclass(frozen=True)
class Similarities:
    """What ``softstart similarity`` measured.

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
        progress: receives the number of run-steps done while these prompts are tuned.

    Raises:
        SoftstartError: no study, no results, or its gym or backbone are not there.
    """
    studied = open_studied(folder, device)
    parts, gains = studied.parts, studied.gains
    names = sorted({name for part in parts for name in (*part.source, *part.target)})
    measures = measure_tasks(studied, names, prompt_steps, progress)
    points = similarity_and_gain(measures, parts, gains)
    result = Similarities(measures, correlations(points), followed(measures, parts, gains), points)
    with atomic(folder / SIMILARITY) as temporary:
        temporary.write_text(json.dumps(_plain(result)), encoding="utf-8")
    return result


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
    studied = open_studied(folder, device)
    names = sorted({name for part in studied.parts for name in part.source})
    if not names or studied.learned.empty:
        raise SoftstartError("the study learned no start", where=str(folder))
    measure = _trusted_measure(folder)
    new = encode_task(task, studied.backbone, studied.study.text)
    tasks = [*(studied.encoded(name) for name in names), new]
    samples = [*[studied.sample] * len(names), next(iter(new.train))]
    similar = pd.Series(cosine(task_vectors(studied, measure, tasks, samples))[-1, :-1], names)
    sources = similar.sort_values(ascending=False).rename_axis("task").reset_index(name="similarity")
    starts = _starts(studied, similar).sort_values("similarity", ascending=False, ignore_index=True)
    return Recommendation(measure, starts, sources)


def _trusted_measure(folder: Path) -> str:
    """The measure that targets of the study would have followed with the largest gain most often."""
    known = read_similarity(folder)
    measures = [str(row["measure"]) for row in (known["followed"] if known else [])]
    trusted = [measure for measure in measures if measure in BY_VECTOR]
    return max(sorted(set(trusted)), key=trusted.count) if trusted else "gradient"


def _starts(studied: StudiedTasks, similar: pd.Series) -> pd.DataFrame:
    """The best start of every setting, as in ``Recommendation``."""
    with open_store(studied.folder, readonly=True) as store:
        init = {key: str(row["start"]) for key, row in store.runs().items()}
    gains, learned, rows = studied.gains, studied.learned, []
    for part in studied.parts:
        mean = gains[gains["setting"] == part.setting].groupby("method")["abs_gain"].mean().dropna()
        if len(mean):
            method = str(mean.idxmax())
            runs = learned[(learned["setting"] == part.setting) & (learned["method"] == method)]
            file = prompt_path(studied.folder, init[str(runs.sort_values("seed")["run"].iloc[0])])
            likeness = float(similar[list(part.source)].mean())
            rows.append((part.setting, likeness, method, float(mean[method]), str(file)))
    return pd.DataFrame(rows, columns=["setting", "similarity", "method", "gain", "init"])


def _plain(result: Similarities) -> dict[str, Any]:
    """What is written to ``similarity.json``."""
    return {
        "measures": {
            name: {"tasks": list(table.index), "values": table.round(4).to_numpy().tolist()}
            for name, table in result.measures.items()
        },
        "correlations": json.loads(result.correlations.to_json(orient="records")),
        "points": json.loads(result.points.round(4).to_json(orient="records")),
        "followed": json.loads(result.followed.to_json(orient="records")),
    }
