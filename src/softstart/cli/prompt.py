"""Tuned prompts: ``softstart predict``, ``evaluate``, ``export`` and ``push``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from softstart.errors import SoftstartError
from softstart.storage.files import atomic

if TYPE_CHECKING:
    from softstart.prompt import SoftPrompt

console = Console()
errors = Console(stderr=True)

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …; by default the GPU if there is one.")]
Model = Annotated[str | None, typer.Option("--backbone", help="By default the one the prompt was made on.")]
Revision = Annotated[str | None, typer.Option(help="Hub revision of the prompt.")]
Input = Annotated[
    str | None, typer.Option("--input", help="The input, from a row's columns: '{title}: {body}'.")
]
Output = Annotated[str | None, typer.Option(help="The output, from a row's columns.")]
MaxInput = Annotated[int, typer.Option(min=1, help="Longer inputs are cut, and counted in a warning.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse inputs that are too long.")]


def predict(
    prompt: Annotated[str, typer.Argument(help="A tuned prompt: file, folder or hub id.")],
    rows: Annotated[str, typer.Option(help="Rows to predict: CSV, TSV, JSONL, parquet.")],
    out: Annotated[Path, typer.Option(help="Where to write: .csv or .jsonl.")],
    backbone: Model = None,
    revision: Revision = None,
    input: Input = None,
    label: Annotated[
        list[str] | None, typer.Option(help="A label word to rank; give it once for each.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write outputs freely, without ranking labels.")
    ] = False,
    max_input_tokens: MaxInput = 512,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Predict unlabeled rows: each row in order with its prediction and the probability of each label.

    \b
    Examples:
      softstart predict tuned --rows new.csv --out predictions.csv
      softstart predict tuned --rows new.csv --out predictions.jsonl --label yes --label no
    """
    from softstart.gym.rows import read_rows
    from softstart.yourtasks.learn_and_adapt import Predictor

    if out.suffix not in (".csv", ".jsonl"):
        raise SoftstartError(f"cannot write '{out.name}'", fix="Use .csv or .jsonl.")
    loaded = load_prompt(prompt, revision)
    model = backbone_of(loaded, backbone, device)
    labels = [] if write else label
    fields = input or loaded.info.get("input") or "{input}"
    predictor = Predictor(
        model, loaded, labels, input=fields, max_input_tokens=max_input_tokens, strict=strict
    )
    count = _write(out, predictor(read_rows(rows)))
    too_long(predictor.truncated, predictor.max_input_tokens, strict)
    console.print(f"{count} rows: {out}", highlight=False, soft_wrap=True)


def evaluate(
    prompt: Annotated[str, typer.Argument(help="A tuned prompt: file, folder or hub id.")],
    rows: Annotated[str, typer.Option(help="Labeled rows: CSV, TSV, JSONL, parquet.")],
    backbone: Model = None,
    revision: Revision = None,
    input: Input = None,
    output: Output = None,
    metric: Annotated[str | None, typer.Option(help="By default the one the prompt was tuned by.")] = None,
    max_input_tokens: MaxInput = 512,
    strict: Strict = False,
    device: Device = None,
) -> None:
    """Score a tuned prompt on labeled rows.

    \b
    Examples:
      softstart evaluate tuned --rows later.csv
      softstart evaluate tuned --rows later.csv --output '{answer}' --metric EM
    """
    from softstart.gym.rows import read_rows
    from softstart.yourtasks.learn_and_adapt import Predictor, evaluate_rows

    loaded = load_prompt(prompt, revision)
    fields = input or loaded.info.get("input") or "{input}"
    found = list(read_rows(rows))
    named = "{label}" if found and "label" in found[0] else "{output}"
    predictor = Predictor(
        backbone_of(loaded, backbone, device), loaded,
        input=fields, max_input_tokens=max_input_tokens, strict=strict,
    )  # fmt: skip
    scored = evaluate_rows(predictor, found, output or loaded.info.get("output") or named, metric)
    too_long(predictor.truncated, predictor.max_input_tokens, strict)
    console.print(f"{scored.metric} {100 * scored.score:.1f} on {scored.rows} rows", highlight=False)


def export(
    prompt: Annotated[
        str, typer.Argument(help="A prompt: file (.safetensors, .pt, .npy), folder or hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder (PEFT adapter) or a .safetensors file.")],
    revision: Revision = None,
) -> None:
    """Convert a prompt of any known format to a PEFT adapter or one safetensors file.

    \b
    Examples:
      softstart export start.pt start.safetensors
      softstart export start.npy adapter/
    """
    loaded = _with_scores(prompt, revision)
    if out.suffix == ".safetensors":
        loaded.save(out)
    else:
        loaded.save_pretrained(out)
    console.print(str(out), highlight=False, soft_wrap=True)


def push(
    prompt: Annotated[str, typer.Argument(help="A prompt: file or folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as a private repository.")] = False,
) -> None:
    """Upload a prompt to the Hugging Face hub as a PEFT adapter with a model card.

    \b
    Examples:
      softstart push tuned me/my-prompt
      softstart push tuned me/my-prompt --private
    """
    console.print(
        _with_scores(prompt, None).push_to_hub(repo, private=private), highlight=False, soft_wrap=True
    )


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Write rows as they come → how many; the columns are those of the first."""
    count, writer = 0, None
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for row in rows:
            count += 1
            if path.suffix == ".jsonl":
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                continue
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
            writer.writerow(row)
    return count


def load_prompt(source: str, revision: str | None) -> SoftPrompt:
    """A prompt; what there is to say of its file goes to standard error."""
    from softstart.prompt import SoftPrompt

    prompt = SoftPrompt.from_pretrained(source, revision=revision)
    if "note" in prompt.info:
        errors.print(f"warning: {prompt.info['note']}", highlight=False, soft_wrap=True)
    return prompt


def _with_scores(source: str, revision: str | None) -> SoftPrompt:
    """A prompt; with one of a study goes what the study found, for its model card."""
    from softstart.study.results.scores import scores_in_study

    prompt = load_prompt(source, revision)
    if "scores" not in prompt.info and (scores := scores_in_study(Path(source))):
        prompt.info["scores"] = scores
    return prompt


def backbone_of(prompt: SoftPrompt | None, name: str | None, device: str | None) -> Any:
    """The backbone that is named, or the one the prompt was made on."""
    from softstart.backbone import Backbone

    name = name or (prompt.backbone if prompt else None)
    if not name:
        raise SoftstartError("the prompt does not say what backbone it was made on", fix="Give --backbone.")
    own = prompt is not None and name == prompt.backbone
    return Backbone.from_pretrained(
        name,
        device=device,
        revision=(prompt.revision or None) if prompt and own else None,
        placement=_placement(prompt) if prompt else "prefix",
    )


def _placement(prompt: SoftPrompt) -> str:
    """The placement of a prompt, if it is registered: a file must not name code to import."""
    from softstart.prompt import PLACEMENTS

    if prompt.placement not in PLACEMENTS:
        raise SoftstartError(
            f"the prompt was trained under placement '{prompt.placement}', which is not registered",
            fix="Load it in Python, after importing the module that defines this placement.",
        )
    return prompt.placement


def too_long(count: int, limit: int, strict: bool) -> None:
    """Warn that so many inputs were cut, or refuse them."""
    if not count:
        return
    what = f"{count} inputs are longer than {limit} tokens"
    if strict:
        raise SoftstartError(what, fix="Raise --max-input-tokens within the model's window.")
    errors.print(f"warning: {what} and were cut", highlight=False, soft_wrap=True)
