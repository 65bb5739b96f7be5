"""The model card of a prompt, generated from its recorded facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from softstart.prompt.kinds import PromptKind
from softstart.prompt.placement import peft_places

OWN_ROWS = (
    "method",
    "algorithm",
    "setting",
    "source",
    "task",
    "scores",
    "license",
    "data",
    "gained",
    "note",
    "from",
)
"""Keys of ``info`` that the card shows in its own way; all others are hyper-parameters."""


def model_card(length: int, kind: PromptKind, facts: Mapping[str, Any]) -> str:
    """README.md with a YAML header, as the hub shows it, of a prompt of P = ``length`` rows.

    ``info["scores"]`` may list results: ``{"task", "metric", "score", "low", "high", "over"}``. The last
    three are optional: the bounds of a 95 % interval, and what it was taken over.
    """
    info, base = facts["info"], _base_model(facts)
    header = [
        "---",
        f"library_name: {'peft' if peft_places(facts['placement']) else 'softstart'}",
        *([f"base_model: {json.dumps(base)}"] if base else []),
        f"license: {json.dumps(info.get('license', 'other'))}",
        f"tags: [softstart, {', '.join(kind.tags)}, meta-learning]",
        "---",
    ]
    return "\n".join([*header, "", *_what(length, kind, facts), *_scores(info), *_use(facts), ""])


def _what(length: int, kind: PromptKind, facts: Mapping[str, Any]) -> list[str]:
    info = facts["info"]
    known = {
        "Backbone": f"`{facts['backbone'] or 'unknown'}`",
        "Backbone revision": facts["revision"] or "not recorded",
        "Backbone weights": facts.get("weights"),
        "Backbone weights (SHA-256)": facts["backbone_digest"] or "not recorded",
        "Tokenizer (SHA-256)": facts["tokenizer_digest"] or "not recorded",
        "Prompt": f"{kind.described(length)}, placed as {facts['placement']}",
        "Method": info.get("method"),
        "Algorithm": info.get("algorithm"),
        "Setting": info.get("setting"),
        "Source tasks": ", ".join(info["source"]) if info.get("source") else None,
        "Licenses of their data": info.get("data"),
        "Gained over a plain start": _gained(info.get("gained")),
        "Task": info.get("task"),
        "Read from": info.get("from"),
        "Note": info.get("note"),
    }
    known |= {f"`{key}`": json.dumps(value) for key, value in info.items() if key not in OWN_ROWS}
    plain, learned = kind.card
    rows = [f"| {key} | {value} |" for key, value in known.items() if value is not None]
    title = info.get("task") or info.get("setting") or "soft prompt"
    return [f"# {learned if info.get('source') else plain}: {title}", "", "| | |", "|---|---|", *rows, ""]


def _gained(facts: Mapping[str, Any] | None) -> str | None:
    if facts is None:
        return None
    ends = f"{facts['low']:+.1f} to {facts['high']:+.1f}"
    over = f"{facts['tasks']} target tasks, {facts['samples']} samples"
    return f"{facts['points']:+.1f} points ({ends}) after {facts['steps']} steps: {over}"


def _scores(info: Mapping[str, Any]) -> list[str]:
    if not info.get("scores"):
        return ["No scores were recorded with this prompt.", ""]
    lines = ["| task | metric | score | 95 % interval |", "|---|---|---|---|"]
    for row in info["scores"]:
        over = f" over {row['over']}" if "over" in row else ""
        bounds = f"none{over}: too few" if over else "not recorded"
        if "low" in row and "high" in row:
            bounds = f"{row['low']:.1f} to {row['high']:.1f}{over}"
        lines.append(f"| {row['task']} | {row['metric']} | {row['score']:.1f} | {bounds} |")
    return ["## Scores", "", *lines, ""]


def _base_model(facts: Mapping[str, Any]) -> str:
    """What the hub shows as the model it was made for; of a rounded copy the hub knows nothing."""
    name: str = facts["backbone"]
    if not facts.get("weights"):
        return name
    repository = name.partition(":")[0]
    return repository if "/" in repository else ""


def _use(facts: Mapping[str, Any]) -> list[str]:
    if not peft_places(facts["placement"]):
        return [
            "## Use",
            "",
            "PEFT puts every prompt before the text, so this one is for Softstart alone:",
            "`softstart predict THIS_FOLDER --rows new.csv --out predictions.csv`, or",
            "`softstart adapt --init THIS_FOLDER --train mine.csv` to start prompt tuning from it.",
        ]
    auto = "AutoModelForCausalLM" if facts["peft_task"] == "CAUSAL_LM" else "AutoModelForSeq2SeqLM"
    at = f", revision={facts['revision']!r}" if facts["revision"] else ""
    files, comment = repr(facts["backbone"]), []
    if facts.get("weights"):
        name, _, file = facts["backbone"].partition(":")
        if "/" in name and file:
            files = f"{name!r}, gguf_file={file!r}"
        elif file:
            files, comment = '"FOLDER"', [f"# FOLDER: softstart backbone path {facts['backbone']}"]
    return [
        "## Use",
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {auto}",
        "",
        *comment,
        f"model = {auto}.from_pretrained({files}{at})",
        'model = PeftModel.from_pretrained(model, "THIS_REPOSITORY")',
        "```",
        "",
        "or, to start prompt tuning from it, `softstart adapt --init THIS_REPOSITORY --train mine.csv`.",
    ]
