"""A page that tunes a prompt on rows you paste and labels others: ``python examples/space/app.py``.

Needs ``pip install 'softstart[space]'``. ``SOFTSTART_SPACE_BACKBONE`` names another model (``smollm2``), and
``SOFTSTART_SPACE_START`` a start for it: a learned one (a folder or hub id) or a name of ``--init``.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from softstart import Backbone, SoftPrompt
from softstart.errors import SoftstartError
from softstart.gym.tables import RawData, whole_task
from softstart.training.configs import AdaptConfig
from softstart.yourtasks import (
    LEARNED,
    PT,
    Predictor,
    best_start,
    compare_starts,
    is_named,
    named_start,
    plain_start,
    verdict,
)
from softstart.yourtasks.rates import rates_for

BACKBONE = os.environ.get("SOFTSTART_SPACE_BACKBONE", "softstart/tiny")
START = os.environ.get("SOFTSTART_SPACE_START", "labels")
LENGTH, STEPS, MOST_ROWS, MOST_NEW = 10, 60, 400, 200
EXAMPLE = "input,label\n" + "mary was glad,good\ntom was sad,bad\nanna was glad,good\nben was sad,bad\n" * 3
NEW = "lucy was glad\npaul was sad"


@cache
def backbone() -> Backbone:
    """The model, loaded once."""
    return Backbone.from_pretrained(BACKBONE)


def label(table: str, new: str, steps: int = STEPS) -> tuple[list[list[Any]], list[str], str]:
    """Tune on a pasted table and label new texts.

    Args:
        table: CSV with the columns input and label; TABs between them do as well.
        new: one text a line.
        steps: of tuning.

    Returns:
        (rows of text, label and the probability of every label; the names of these columns; what was done and
        whether the start helped).

    Raises:
        SoftstartError: a table that cannot be read, or too much of it.
    """
    texts = [line.strip() for line in new.splitlines() if line.strip()]
    if not texts or len(texts) > MOST_NEW or table.count("\n") > MOST_ROWS:
        raise SoftstartError(
            f"{len(texts)} new texts and {table.count(chr(10))} lines of rows",
            fix=f"Give 1 to {MOST_NEW} texts, and up to {MOST_ROWS} rows.",
        )
    suffix = ".tsv" if "\t" in table.partition("\n")[0] else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_text(table.strip() + "\n", encoding="utf-8")
        task = whole_task(RawData(str(path), label="label"))
    model = backbone()
    learned = named_start(model, START, [task], length=LENGTH) if is_named(START) else SoftPrompt.load(START)
    name = f"start {START}" if is_named(START) else LEARNED
    plain = plain_start(model, len(learned.check_for(model, START)))
    rates, unit = rates_for(model, None, None)
    config = AdaptConfig(steps=steps, eval_every=max(1, steps // 6), max_tokens=2048, lr_unit=unit)
    tuned = compare_starts(model, task, {PT: plain, name: learned}, rates=rates[:1], config=config)
    best = best_start(tuned)
    predictor = Predictor(model, tuned[best].prompt)
    found = [list(row.values()) for row in predictor({"input": text} for text in texts)]
    gains = [a - b for a, b in zip(tuned[name].tests, tuned[PT].tests, strict=True)]
    said = (
        f"Tuned on {len(task.samples[42].train)} rows, selected on {len(task.samples[42].dev)}, tested on "
        f"{len(task.test)}; {steps} steps on {model.name}.\n\n"
        f"The prompt used is that of **{best}**. The {name} {verdict(gains, tuned[name].gain)}."
    )
    return found, ["text", *predictor.columns], said


def page() -> Any:
    """The page, as gradio builds it."""
    import gradio

    def answer(table: str, new: str) -> tuple[Any, str]:
        try:
            rows, columns, said = label(table, new)
        except SoftstartError as problem:
            raise gradio.Error(str(problem)) from None
        return {"headers": columns, "data": rows}, said

    with gradio.Blocks(title="Softstart") as blocks:
        gradio.Markdown("# Softstart\nPaste labeled rows, label new ones, and see whether the start helped.")
        with gradio.Row():
            table = gradio.Textbox(EXAMPLE, lines=10, label="Rows: input,label")
            new = gradio.Textbox(NEW, lines=10, label="New texts, one a line")
        button = gradio.Button("Tune and label", variant="primary")
        said = gradio.Markdown()
        labels = gradio.Dataframe(label="Labels")
        button.click(answer, [table, new], [labels, said], api_name="label")
    return blocks


if __name__ == "__main__":
    page().launch()
