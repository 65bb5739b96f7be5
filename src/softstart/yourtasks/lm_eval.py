"""A table as a multiple-choice task of lm-evaluation-harness, which then scores a prompt as we do.

The harness joins a context and a choice as texts and tokenizes them itself. Two things make its numbers ours:
a choice carries the token that ends an output (``evaluate`` ranks "label, then the end"), and no row is
written whose tokens would come out otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.gym.multi_label import questions
from softstart.gym.task import Example
from softstart.storage.files import atomic
from softstart.training.chat import chat_text
from softstart.yourtasks.predict import Predictor

ROWS_FILE, TASK_FILE = "rows.jsonl", "{name}.yaml"


@dataclass(frozen=True)
class Written:
    """A task in a folder: its name, how many rows it has, and how many were left out."""

    name: str
    rows: int
    left_out: int


def write_lm_eval(predictor: Predictor, rows: Sequence[Example], folder: Path) -> Written:
    """Write labeled rows as a task that lm-evaluation-harness takes with ``--include_path FOLDER``.

    Its metric is accuracy. Rows that the harness would tokenize otherwise are left out: inputs that
    ``evaluate`` would cut, or that end in white space, which the harness moves to the choice.

    Args:
        predictor: the prompt with its labels, template and limits.
        rows: inputs and their accepted answers, see ``softstart.gym.tables.labeled_rows``.
        folder: made if it is not there; two files are written.

    Raises:
        SoftstartError: the prompt has no labels, a row's answer is none of them, no row is left, or the
            harness would break the model.

    """
    labels = list(predictor.labels or ())
    if not labels:
        raise SoftstartError(
            "a multiple-choice task needs labels, and the prompt has none",
            fix="Tune it on a table of labels, or score it with softstart evaluate.",
        )
    if predictor.asked:
        rows = questions(rows, predictor.asked)
    _check_output_layer(predictor.backbone)
    name = "softstart_" + (predictor.task.name or "task").replace("-", "_").replace(".", "_")
    choices = [_choice(predictor.backbone, label, chat=predictor.format.chat) for label in labels]
    lines = []
    for number, row in enumerate(rows, 1):
        gold = next((labels.index(answer) for answer in row.outputs if answer in labels), None)
        if gold is None:
            raise SoftstartError(
                f"row {number}: the answer {row.outputs[0]!r} is no label of the prompt",
                fix=f"Its labels are {', '.join(map(repr, labels))}.",
            )
        context = _context(predictor, row.input)
        if _reads_alike(predictor, row.input, context, choices):
            lines.append({"context": context, "choices": choices, "gold": gold, "label": labels[gold]})
    if not lines:
        raise SoftstartError(
            "no row is left: the harness would tokenize every one otherwise",
            fix="Score the prompt with softstart evaluate.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / ROWS_FILE) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with atomic(folder / TASK_FILE.format(name=name)) as temporary:
        temporary.write_text(yaml.safe_dump(_task(name, folder), sort_keys=False), encoding="utf-8")
    return Written(name, len(lines), len(rows) - len(lines))


def _check_output_layer(backbone: Backbone) -> None:
    """Refuse models whose output layer the harness would replace by the embedding (seen with 0.4.13).

    It calls ``tie_weights`` after loading, and transformers 5 calls every T5 tied, T5 v1.1 included.
    """
    model = backbone.model
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if getattr(model.config, "tie_word_embeddings", False) and not tied:
        raise SoftstartError(
            f"lm-evaluation-harness would replace the output layer of '{backbone.name}' by its embedding, "
            "and its scores would mean nothing",
            fix="Score the prompt with softstart evaluate.",
        )


def _task(name: str, folder: Path) -> dict[str, object]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((folder / ROWS_FILE).resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def _context(predictor: Predictor, text: str) -> str:
    filled = predictor.format.fill(predictor.task.name, text)
    if not predictor.format.chat:
        return filled
    return chat_text(predictor.backbone.tokenizer, predictor.backbone.name, filled)


def _choice(backbone: Backbone, label: str, *, chat: bool) -> str:
    """A label as the harness appends it, with the end token in words."""
    end = str(backbone.tokenizer.eos_token)
    return f" {label}{end}" if backbone.continues_input and not chat else f"{label}{end}"


def _reads_alike(predictor: Predictor, text: str, context: str, choices: Sequence[str]) -> bool:
    """Whether the harness gives the model the tokens that ``evaluate`` gives it, for every choice."""
    backbone = predictor.backbone
    rows, cut = predictor.encoded([text])
    if cut or context != context.rstrip():
        return False
    (ids,), encode = rows.inputs, backbone.tokenizer
    if list(encode(context).input_ids) != ids:
        return False
    for choice, wanted in zip(choices, predictor.task.label_ids, strict=True):
        if backbone.continues_input:
            got = encode(context + choice).input_ids[len(ids) :]
        else:
            got = encode(choice, add_special_tokens=False).input_ids
        if list(got) != wanted:
            return False
    return True
