"""Functions of tensors that torch compiles once for tensors of any size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from softstart.errors import SoftstartError

BACKEND = "inductor"
"""torch's compiler; tests take one that needs no C compiler."""


@cache
def compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """A function, compiled when it is first called; then a SoftstartError says if torch cannot."""
    made: Callable[..., Any] = torch.compile(function, backend=backend)

    def call(*arguments: Any) -> Any:
        try:
            return made(*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as problem:
            reason = str(problem.inner_exception).strip().splitlines()
            raise SoftstartError(
                f"torch cannot compile layers here ({reason[0] if reason else problem})",
                fix="Leave compile out, or install a C compiler (on Debian: gcc and python3-dev).",
            ) from problem

    return call


def of_any_size(*tensors: Any) -> None:
    """Mark axes of tensors, to be compiled for any length; all other axes are for the length they have.

    Args:
        tensors: each a tuple of a tensor and its axes.
    """
    for tensor, *axes in tensors:
        torch._dynamo.maybe_mark_dynamic(tensor, axes)
