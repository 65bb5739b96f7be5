"""Soft prompts: what they belong to, where they start, how they are stored and shared."""

from __future__ import annotations

from softstart.prompt.formats import CONFIG_FILE, FURTHER, TENSOR, WEIGHTS_FILE
from softstart.prompt.frequent import frequent_words
from softstart.prompt.initializers import (
    INITIALIZERS,
    Initializer,
    Material,
    NamedInitializer,
    class_labels,
    demonstration_origins,
    demonstrations,
    find_initializer,
    from_prompt,
    from_tensor,
    gaussian,
    make_initializer,
    nearest_source,
    ordinary_tokens,
    similarity,
    source_average,
    task_names,
    text,
    usages,
    vocabulary,
)
from softstart.prompt.kinds import KINDS, Embeddings, KeyValues, PromptKind
from softstart.prompt.placement import PLACEMENTS, Placement
from softstart.prompt.soft_prompt import SoftPrompt, made_on, save_tasks

__all__ = [
    "CONFIG_FILE",
    "FURTHER",
    "INITIALIZERS",
    "KINDS",
    "PLACEMENTS",
    "TENSOR",
    "WEIGHTS_FILE",
    "Embeddings",
    "Initializer",
    "KeyValues",
    "Material",
    "NamedInitializer",
    "Placement",
    "PromptKind",
    "SoftPrompt",
    "class_labels",
    "demonstration_origins",
    "demonstrations",
    "find_initializer",
    "frequent_words",
    "from_prompt",
    "from_tensor",
    "gaussian",
    "made_on",
    "make_initializer",
    "nearest_source",
    "ordinary_tokens",
    "save_tasks",
    "similarity",
    "source_average",
    "task_names",
    "text",
    "usages",
    "vocabulary",
]
