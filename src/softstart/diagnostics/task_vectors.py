"""Tasks as vectors of the frozen backbone: what their texts encode to, and which way they pull a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from softstart.backbone import Backbone
from softstart.training.encoding import EncodedTask, rng_for, to_batch
from softstart.training.gradients import run_gradients

Floats = npt.NDArray[np.float64]


def gradient_vectors(
    backbone: Backbone,
    start: Tensor,
    tasks: Sequence[EncodedTask],
    samples: Sequence[int],
    *,
    max_tokens: int | None = 8192,
) -> Floats:
    """Gradients of every task's training loss at one shared start [P, d]: [T, P·d].

    All rows of the train file of each task's sample, named in ``samples``; the first accepted answer of each.
    """
    vectors = []
    for task, sample in zip(tasks, samples, strict=True):
        rows = task.train[sample]
        pairs = rows.pick(rows.trainable, rng_for(sample))
        batch = to_batch(pairs, [0] * len(pairs), backbone.tokenizer.pad_token_id).to(backbone.device)
        prompt = start[None].to(backbone.device, backbone.prompt_dtype)
        vectors.append(run_gradients(backbone, prompt, batch, max_tokens)[1].flatten())
    return torch.stack(vectors).double().cpu().numpy()


@torch.no_grad()
def encoder_vectors(
    backbone: Backbone, tasks: Sequence[EncodedTask], samples: Sequence[int], part: str = "inputs"
) -> Floats:
    """Mean encoder state over the tokens and rows of a train file, without any prompt: [T, d].

    Args:
        backbone: the frozen model.
        tasks: the tasks.
        samples: the sample of each task that is looked at, by its seed.
        part: ``inputs``, or ``outputs`` (the first accepted answers).
    """
    vectors = []
    for task, sample in zip(tasks, samples, strict=True):
        rows = task.train[sample]
        texts = rows.inputs if part == "inputs" else [answers[0] for answers in rows.outputs if answers]
        states = [_pooled(backbone, ids) for ids in texts if ids]
        vectors.append(torch.stack(states).mean(0))
    return torch.stack(vectors).double().cpu().numpy()


def _pooled(backbone: Backbone, ids: Sequence[int]) -> Tensor:
    embeds = backbone.embedding(torch.tensor([ids], device=backbone.device))
    state: Tensor = backbone.encode(embeds, torch.ones(embeds.shape[:2], device=backbone.device))
    return state[0].mean(0)
