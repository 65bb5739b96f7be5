"""How the rows of a prompt's task are read, noted with the prompt so that later commands read them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from softstart.gym.tables import RawData

READS_ANSWERS = ("output", "label", "labels", "multi_label")
"""What says where the answers of a row are; they go together."""


def noted(raw: RawData) -> dict[str, Any]:
    """What a prompt's ``info`` keeps of how its rows were read; see ``softstart.gym.tables.resolved``.

    >>> noted(RawData("mine.csv", input="{title}", label="stars", labels={"1": "bad", "5": "good"}))
    {'input': '{title}', 'output': None, 'label': 'stars', 'label_words': {'1': 'bad', '5': 'good'}}
    """
    words = raw.labels if isinstance(raw.labels, Mapping) else {word: word for word in raw.labels}
    return {
        "input": raw.input or "{input}",
        "output": raw.output,
        "label": raw.label,
        "label_words": {str(value): word for value, word in words.items()} or None,
        **({"multi_label": list(raw.multi_label)} if raw.multi_label else {}),
    }


def as_noted(info: Mapping[str, Any], raw: RawData) -> RawData:
    """A table read as a prompt's rows were, but for what ``raw`` says itself.

    >>> as_noted({"input": "{title}", "label": "stars"}, RawData("more.csv")).label
    'stars'
    >>> as_noted({"input": "{title}", "label": "stars"}, RawData("more.csv", output="{answer}")).label
    """
    known: dict[str, Any] = {"input": raw.input or info.get("input")}
    if not any(getattr(raw, name) for name in READS_ANSWERS):
        known |= {"output": info.get("output"), "label": info.get("label")}
        known["labels"] = info.get("label_words") or ()
        known["multi_label"] = tuple(info.get("multi_label") or ())
    if known["input"] == "{input}":
        del known["input"]  # the column that is taken without a template, too
    return replace(raw, **known)
