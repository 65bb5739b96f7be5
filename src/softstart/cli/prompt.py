"""Tuned prompts: ``softstart predict``, ``evaluate``, ``export`` and ``push``."""

from __future__ import annotations

import csv
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softstart.cli.opening import backbone_of, check_lengths, load_prompt, table
from softstart.cli.options import (
    By,
    Device,
    Input,
    Label,
    LabelWords,
    MaxInput,
    MultiLabel,
    NoHeader,
    Output,
    Prompt,
    PromptBackbone,
    PromptRevision,
    ScoringName,
    Strict,
    TextCache,
)
from softstart.cli.terminal import progress_bar, say, warn, warn_all
from softstart.cli.tuned import score_line, show_scores
from softstart.errors import SoftstartError, did_you_mean
from softstart.storage.csv_files import written_cell
from softstart.storage.files import atomic

if TYPE_CHECKING:
    from softstart.progress import Progress
    from softstart.prompt import SoftPrompt
    from softstart.yourtasks import Predictor

REPORTED = 256
"""Rows between two reports of progress."""


def predict(
    prompt: Prompt,
    rows: Annotated[str, typer.Option(help="Rows to predict: CSV, TSV, JSONL, parquet.")],
    out: Annotated[Path, typer.Option(help="Where to write: .csv or .jsonl.")],
    by: By = None,
    backbone: PromptBackbone = None,
    revision: PromptRevision = None,
    input: Input = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels", help="Label words to choose from; by default those the prompt was tuned on."
        ),
    ] = None,
    scoring: ScoringName = None,
    no_header: NoHeader = False,
    max_input_tokens: MaxInput = None,
    strict: Strict = False,
    device: Device = None,
    text_cache: TextCache = None,
) -> None:
    """Predict unlabeled rows. Each is written in order, with a prediction and a probability for each label.

    With --by, every row has its own prompt of a folder, and all of them share forward passes.

    \b
    Examples:
      softstart predict tuned --rows new.csv --out predictions.csv
      softstart predict prompts/ --by task --rows new.csv --out predictions.csv
      softstart predict tuned --rows new.csv --out predictions.jsonl --labels yes no
    """
    from softstart.gym.rows import columns_of, read_rows
    from softstart.gym.tables import column_template
    from softstart.yourtasks import ManyPrompts

    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise SoftstartError(f"cannot write '{out.name}'", where="--out", fix="Use .csv or .jsonl.")
    prompts = _prompts(prompt, revision, many=by is not None)
    header = False if no_header else None
    with progress_bar("reading rows"):
        columns = columns_of(rows, header=header)
    fields = column_template(input, columns, "--input") if input else None
    how = {"max_input_tokens": max_input_tokens, "strict": strict, "scoring": scoring, "labels": labels}
    found = _predictors(prompts, (backbone, device, text_cache), {"input": fields, **how})
    one = next(iter(found.values()))
    if by is not None and by not in columns:
        fix = did_you_mean(by, columns) or f"It has {', '.join(columns)}."
        raise SoftstartError(f"no column '{by}'", where=rows, fix=fix)
    predictor = one if by is None else ManyPrompts(found, by)
    one.check_columns(columns, rows)
    with progress_bar("predicting") as progress:
        predicted = predictor(read_rows(rows, header=header))
        count = _write(out, [*columns, *predictor.columns], predicted, progress)
    check_lengths(predictor.truncated, one.limit, strict, fields or one.input)
    say(f"{count} rows: {out}")


def _prompts(source: str, revision: str | None, *, many: bool) -> dict[str, SoftPrompt]:
    """A prompt, or those of a folder, by name."""
    from softstart.prompt.formats import prompts_in

    if not many:
        return {source: load_prompt(source, revision)}
    return {name: load_prompt(str(path)) for name, path in prompts_in(source).items()}


def _predictors(
    prompts: Mapping[str, SoftPrompt],
    where: tuple[str | None, str | None, int | None],
    how: Mapping[str, Any],
) -> dict[str, Predictor]:
    """Predictors of prompts on the backbone of the first; ``where``: --backbone, --device, --text-cache."""
    from softstart.yourtasks import Predictor

    model = backbone_of(next(iter(prompts.values())), *where)
    found = {}
    for name, prompt in prompts.items():
        read = {**how, "input": how.get("input") or prompt.info.get("input") or "{input}"}
        try:
            found[name] = Predictor(model, prompt, **read)
        except SoftstartError as problem:
            if len(prompts) == 1:
                raise
            raise SoftstartError(problem.what, where=problem.where or name, fix=problem.fix) from None
    return found


def evaluate(
    prompt: Prompt,
    rows: Annotated[str, typer.Option(help="Labeled rows: CSV, TSV, JSONL, parquet.")],
    by: By = None,
    backbone: PromptBackbone = None,
    revision: PromptRevision = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    labels: LabelWords = None,
    multi_label: MultiLabel = None,
    no_header: NoHeader = False,
    scoring: ScoringName = None,
    metric: Annotated[
        str | None, typer.Option(help="One of: <metrics>; by default the one the prompt was tuned by.")
    ] = None,
    max_input_tokens: MaxInput = None,
    strict: Strict = False,
    device: Device = None,
    text_cache: TextCache = None,
) -> None:
    """Score a tuned prompt on labeled rows. Of a folder of prompts each is scored, with --by on its rows.

    \b
    Examples:
      softstart evaluate tuned --rows later.csv
      softstart evaluate tuned --rows later.csv --output '{answer}' --metric EM
      softstart evaluate prompts/ --rows later.csv --by task
    """
    from softstart.gym.metrics import METRICS
    from softstart.gym.tables import labeled_rows
    from softstart.prompt.formats import is_prompt_folder
    from softstart.yourtasks.many import evaluate_many
    from softstart.yourtasks.reading import as_noted

    if metric:
        METRICS.find(metric, "--metric")
    many = by is not None or is_prompt_folder(prompt)
    prompts = _prompts(prompt, revision, many=many)
    given = table(rows, input, output, label, labels, no_header, multi_label)
    only = {name: {} if by is None else {by: name} for name in prompts}
    raws = {name: replace(as_noted(of.info, given), only=only[name]) for name, of in prompts.items()}
    examples = {name: labeled_rows(raw) for name, raw in raws.items()}
    how = {"max_input_tokens": max_input_tokens, "strict": strict, "scoring": scoring}
    predictors = _predictors(prompts, (backbone, device, text_cache), how)
    with progress_bar("scoring"):
        found = evaluate_many(predictors, examples, metric)
    for name, scored in found.items():
        warn_all(f"{name}: {note}" if many else note for note in scored.notes)
        of = predictors[name]
        check_lengths(of.truncated, of.limit, strict, raws[name].input or "")
    if many:
        show_scores(found)
        return
    (scored,) = found.values()
    say(score_line(scored))


def export(
    prompt: Annotated[
        str, typer.Argument(help="A prompt: file (.safetensors, .pt, .npy), folder or hub id.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder (PEFT adapter) or a .safetensors file.")],
    revision: PromptRevision = None,
    lm_eval: Annotated[
        Path | None,
        typer.Option(help="Folder for --rows as a task of lm-evaluation-harness, which then scores alike."),
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Labeled rows for --lm-eval.")] = None,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="All tasks of a multitask prompt, as PEFT's adapter of that kind.")
    ] = False,
    backbone: PromptBackbone = None,
    device: Device = None,
) -> None:
    """Convert a prompt from any known format. The result is a PEFT adapter or one safetensors file.

    \b
    Examples:
      softstart export start.pt start.safetensors
      softstart export start.npy adapter/
      softstart export start adapter/ --tasks
      softstart export tuned adapter/ --lm-eval harness/ --rows later.csv
    """
    from softstart.prompt import save_tasks
    from softstart.prompt.formats import check_prompt_output

    if (lm_eval is None) != (rows is None):
        raise SoftstartError("--lm-eval and --rows go together", fix="Give both or none.")
    check_prompt_output(out)
    loaded = _with_scores(prompt, revision)
    if tasks:
        save_tasks(loaded, out)
    elif out.suffix == ".safetensors":
        loaded.save(out)
    else:
        loaded.save_pretrained(out)
    say(str(out))
    if lm_eval and rows:
        _write_lm_eval(loaded, out, lm_eval, rows, backbone, device)


def _write_lm_eval(
    prompt: SoftPrompt, adapter: Path, folder: Path, rows: str, backbone: str | None, device: str | None
) -> None:
    """Write a table as a task of lm-evaluation-harness, and say how to run it."""
    from softstart.backbone.sources import locate
    from softstart.gym.tables import labeled_rows
    from softstart.yourtasks import Predictor, write_lm_eval
    from softstart.yourtasks.reading import as_noted

    examples = labeled_rows(as_noted(prompt.info, table(rows, None, None, None, None, False)))
    model = backbone_of(prompt, backbone, device)
    written = write_lm_eval(Predictor(model, prompt), examples, folder)
    if written.left_out:
        warn(f"{written.left_out} rows are left out: lm-evaluation-harness would tokenize them otherwise")
    kind = "" if model.continues_input else ",backend=seq2seq"
    files = locate(model.name).path
    say(
        f"{written.rows} rows: lm_eval --model hf --model_args "
        f'"pretrained={files},peft={adapter},dtype=float32{kind}" '
        f"--include_path {folder} --tasks {written.name}"
    )


def push(
    prompt: Annotated[str, typer.Argument(help="A prompt: file or folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create it as a private repository.")] = False,
) -> None:
    """Upload a prompt to the Hugging Face hub. It becomes a PEFT adapter with a model card.

    \b
    Examples:
      softstart push tuned me/my-prompt
      softstart push tuned me/my-prompt --private
    """
    say(_with_scores(prompt, None).push_to_hub(repo, private=private))


def _write(path: Path, columns: Sequence[str], rows: Iterator[dict[str, Any]], progress: Progress) -> int:
    """Write rows as they come and count them."""
    count = 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        if path.suffix.lower() == ".csv":
            table.writerow(map(written_cell, columns))
        for row in rows:
            count += 1
            if not count % REPORTED:
                progress(REPORTED, f"predicting: {count:,} rows")
            if path.suffix.lower() == ".jsonl":
                file.write(_json(row) + "\n")
            else:
                table.writerow([written_cell(_cell(row.get(name))) for name in columns])
    return count


def _cell(value: Any) -> Any:
    """A value as a cell: what holds others as JSON."""
    if isinstance(value, (list, dict)):
        return _json(value)
    return _as_text(value) if isinstance(value, bytes) or hasattr(value, "isoformat") else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_as_text)


def _as_text(value: Any) -> str:
    """What parquet has and JSON has not: times in ISO 8601, exact numbers in digits, bytes in base64."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _with_scores(source: str, revision: str | None) -> SoftPrompt:
    """A prompt; one of a study takes the scores it has there along, for its model card."""
    from softstart.study.results.scores import scores_in_study

    prompt = load_prompt(source, revision)
    if "scores" not in prompt.info and (scores := scores_in_study(Path(source))):
        prompt.info["scores"] = scores
    return prompt
