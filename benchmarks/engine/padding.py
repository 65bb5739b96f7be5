"""What two of the engine's steps are worth on a CPU: leaving padding out, and whose product multiplies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import torch
from benchmarks.engine.timing import Contender
from benchmarks.engine.work import Work

from softstart.backbone import kernels
from softstart.backbone.base import Backbone
from softstart.backbone.t5 import T5Backbone
from softstart.backbone.unpadded import Unpadded
from softstart.training.gradients import run_gradients


def contenders(work: Work) -> dict[str, Contender]:
    """A step of all runs with and without padding, with oneDNN's product and with MKL's."""
    batch = work.joined(list(range(work.runs)))

    def step(padded: bool, mkl: bool) -> torch.Tensor:
        with _as_it_was(padded), patch.object(kernels, "_mkl_leads", lambda: mkl):
            return run_gradients(work.backbone, work.starts, batch, 2048)[1]

    return {
        f"{rows}, {product}": lambda padded=padded, mkl=mkl: step(padded, mkl)  # type: ignore[misc]
        for rows, padded in (("groups by length", True), ("no padding", False))
        for product, mkl in (("oneDNN", False), ("MKL", True))
    }


@contextlib.contextmanager
def _as_it_was(padded: bool) -> Iterator[None]:
    if not padded:
        yield
        return
    with (
        patch.object(Unpadded, "of", lambda mask: None),
        patch.object(T5Backbone, "parts", Backbone.parts),
    ):
        yield
