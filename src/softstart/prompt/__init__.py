"""Soft prompts: what they belong to, where they start, how they are stored and shared."""

from __future__ import annotations

from softstart.prompt.formats import CONFIG_FILE, FURTHER, TENSOR, WEIGHTS_FILE
from softstart.prompt.initializers import (
    Initializer,
    class_labels,
    from_prompt,
    from_tensor,
    gaussian,
    nearest_source,
    ordinary_tokens,
    similarity,
    source_average,
    task_names,
    text,
    vocabulary,
)
from softstart.prompt.placement import PLACEMENTS, Placement
from softstart.prompt.soft_prompt import SoftPrompt, made_on

__all__ = [
    "CONFIG_FILE",
    "FURTHER",
    "PLACEMENTS",
    "TENSOR",
    "WEIGHTS_FILE",
    "Initializer",
    "Placement",
    "SoftPrompt",
    "class_labels",
    "from_prompt",
    "from_tensor",
    "gaussian",
    "made_on",
    "nearest_source",
    "ordinary_tokens",
    "similarity",
    "source_average",
    "task_names",
    "text",
    "vocabulary",
]
