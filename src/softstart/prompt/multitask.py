"""PEFT's ``MULTITASK_PROMPT_TUNING`` (Wang et al., 2023): one prompt, times a matrix of low rank per task.

Wang et al. abbreviate their method MPT, as Qin et al. (2023) do meta prompt tuning. In PEFT, task n of N has
the prompt ``prompt_embeddings`` ∘ (``prefix_task_cols[n]`` ``prefix_task_rows[n]``), and its model takes
``task_ids``. Here such an adapter is one prompt, at which another task begins: with the means of the factors,
as in PEFT's ``AVERAGE_SOURCE_TASKS``. Its ``further`` has the shared prompt and the factors by the names that
``multitask_prompt`` gives them: ``shared`` [P, d], ``columns`` [N P, rank], ``rows`` [N rank, d].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from softstart.errors import SoftstartError

PEFT_TYPE = "MULTITASK_PROMPT_TUNING"
SHARED, COLUMNS, ROWS = "shared", "columns", "rows"
PEFT_COLUMNS, PEFT_ROWS = "prefix_task_cols", "prefix_task_rows"


def has_tasks(further: Mapping[str, Tensor]) -> bool:
    """Whether a prompt comes with what multitask prompt tuning learned."""
    return {SHARED, COLUMNS, ROWS} <= further.keys()


def task_prompts(further: Mapping[str, Tensor]) -> Tensor:
    """The prompts of all tasks [N, P, d].

    Args:
        further: ``SoftPrompt.further`` of a prompt with tasks.
    """
    shared, columns, rows = _parts(further)
    return shared * (columns @ rows)


def to_peft(further: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of PEFT's adapter but ``prompt_embeddings``, and what its configuration says of them."""
    _, columns, rows = _parts(further)
    tensors = {PEFT_COLUMNS: columns.contiguous(), PEFT_ROWS: rows.contiguous()}
    return tensors, {"peft_type": PEFT_TYPE, "num_tasks": len(columns), "num_ranks": columns.shape[2]}


def from_peft(prompt: Tensor, tensors: Mapping[str, Tensor], length: int, where: str) -> dict[str, Tensor]:
    """What PEFT's adapter holds, by our names, with the start of another task [P, d] under ``start``.

    Args:
        prompt: ``prompt_embeddings``.
        tensors: all tensors of the file.
        length: P.
        where: the file, for messages.

    Raises:
        SoftstartError: no factors of the tasks that fit the prompt, or rows for the decoder.
    """
    columns, rows = tensors.get(PEFT_COLUMNS), tensors.get(PEFT_ROWS)
    if len(prompt) == 2 * length:
        raise SoftstartError(
            f"the adapter has {length} rows before the text and {length} before the output: PEFT uses both "
            "in adapters of this kind",
            where=where,
            fix="Softstart puts prompts before the text alone: train it with num_transformer_submodules=1.",
        )
    if columns is None or rows is None or not _fit(prompt, columns, rows):
        raise SoftstartError(
            f"the adapter has no {PEFT_COLUMNS} [N, P, rank] and {PEFT_ROWS} [N, rank, d] for its prompt",
            where=where,
            fix="Give the adapter as it was saved.",
        )
    start = prompt * (columns.mean(0) @ rows.mean(0))
    return {"start": start, SHARED: prompt, COLUMNS: columns.flatten(0, 1), ROWS: rows.flatten(0, 1)}


def _fit(prompt: Tensor, columns: Tensor, rows: Tensor) -> bool:
    if columns.ndim != 3 or rows.ndim != 3 or not len(columns) or columns.shape[2] != rows.shape[1]:
        return False
    return len(columns) == len(rows) and (columns.shape[1], rows.shape[2]) == tuple(prompt.shape)


def _parts(further: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The shared prompt [P, d], and the factors [N, P, rank] and [N, rank, d]."""
    shared, columns, rows = (further[name] for name in (SHARED, COLUMNS, ROWS))
    return shared, columns.unflatten(0, (-1, len(shared))), rows.unflatten(0, (-1, columns.shape[1]))
