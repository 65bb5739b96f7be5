"""How similar the tasks of a study are, by every measure: gradients, texts, tuned prompts, categories."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch

from softstart.analysis.similarity import Floats, category_agreement, cosine, prompt_similarity
from softstart.diagnostics.studied_tasks import StudiedTasks
from softstart.diagnostics.task_vectors import encoder_vectors, gradient_vectors
from softstart.errors import SoftstartError
from softstart.progress import Progress
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import EncodedTask

BY_VECTOR = ("gradient", "inputs", "outputs")
"""Measures that need nothing but a task's rows, so that a task new to the study has them, too."""

_PACK = 16
"""Prompts tuned together."""


def measure_tasks(
    studied: StudiedTasks, names: list[str], prompt_steps: int, progress: Progress
) -> dict[str, pd.DataFrame]:
    """Tables of similarity, tasks by tasks, by measure.

    Args:
        studied: the study.
        names: its tasks.
        prompt_steps: how long a prompt of every task is tuned for the cosines between prompts; 0 leaves
            these out.
        progress: receives the number of run-steps done while these prompts are tuned.

    Raises:
        SoftstartError: tuning a prompt diverged.
    """
    tasks, samples = [studied.encoded(name) for name in names], [studied.sample] * len(names)
    values = {measure: cosine(task_vectors(studied, measure, tasks, samples)) for measure in BY_VECTOR}
    if prompt_steps:
        start, prompts = _tuned_prompts(studied, tasks, prompt_steps, progress)
        values["prompt, flat"] = prompt_similarity(prompts - start)
        values["prompt, mean"] = prompt_similarity(prompts - start, "mean")
        if find_spec("scipy"):
            values["prompt, matched"] = prompt_similarity(prompts, "matched")
    values["category"] = category_agreement([studied.category(name) for name in names])
    return {measure: pd.DataFrame(table, names, names) for measure, table in values.items()}


def task_vectors(
    studied: StudiedTasks, measure: str, tasks: Sequence[EncodedTask], samples: Sequence[int]
) -> Floats:
    """Vectors [T, D] whose cosines are a measure of ``BY_VECTOR``, from one sample of each task."""
    if measure == "gradient":
        return gradient_vectors(studied.backbone, studied.start(), tasks, samples)
    states = encoder_vectors(studied.backbone, tasks, samples, measure)
    # They share a large common direction that would make every cosine near 1.
    return np.asarray(states - states.mean(axis=0), dtype=np.float64)


def _tuned_prompts(
    studied: StudiedTasks, tasks: Sequence[EncodedTask], steps: int, progress: Progress
) -> tuple[Floats, Floats]:
    """The shared start [P, d] and the prompt [T, P, d] that each task was tuned to from it."""
    study, start = studied.study, studied.start()
    config = AdaptConfig(
        steps=steps,
        batch_size=study.adaptation.batch_size,
        eval_every=steps,
        eval_start=False,
        select="last",
        optimizer=study.adaptation.optimizer,
        max_tokens=study.adaptation.max_tokens,
    )
    runs = [AdaptRun(start, task, studied.sample, study.learning_rates[0]) for task in tasks]
    prompts: list[torch.Tensor] = []
    for first in range(0, len(runs), _PACK):
        pack = adapt(
            studied.backbone, runs[first : first + _PACK], config, study.evaluation, progress=progress
        )
        prompts += [result.prompt for result in pack]
    for task, prompt in zip(tasks, prompts, strict=True):
        if not prompt.isfinite().all():
            raise SoftstartError(
                f"tuning a prompt for '{task.name}' diverged", fix="Leave prompts out: --prompt-steps 0."
            )
    return start.double().numpy(), torch.stack(prompts).double().cpu().numpy()
