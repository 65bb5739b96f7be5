"""Your own tasks: ``softstart meta-train`` and ``adapt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softstart.cli.opening import backbone_of, check_lengths, load_prompt, scored_by, table
from softstart.cli.options import (
    AlgorithmName,
    BackboneName,
    Chat,
    Device,
    DevRows,
    GymReading,
    InContextRows,
    Input,
    KindName,
    Label,
    LabelWords,
    LrUnitOption,
    MaxInput,
    MultiLabel,
    NoHeader,
    Output,
    PlacementName,
    PromptBackbone,
    PromptRevision,
    Replace,
    ScoringName,
    Seed,
    Splits,
    Steps,
    Strict,
    TestRows,
    TextCache,
)
from softstart.cli.resuming import resumable
from softstart.cli.terminal import progress_bar, say, warn, warn_all
from softstart.cli.tuned import saved_line, show_tuned
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from torch import Tensor

    from softstart.backbone import Backbone
    from softstart.gym.tables import RawData
    from softstart.gym.task import Task
    from softstart.prompt import SoftPrompt
    from softstart.training.encoding import TextFormat
    from softstart.yourtasks import Tuned


def meta_train(
    folder: Annotated[Path, typer.Argument(help="A table per task, or tasks in CrossFit's format.")],
    out: Annotated[Path, typer.Option(help="Folder for the learned start, for adapt --init.")],
    backbone: BackboneName = "softstart/tiny",
    revision: Annotated[str | None, typer.Option(help="Hub revision of the backbone.")] = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    labels: LabelWords = None,
    no_header: NoHeader = False,
    gym_reading: GymReading = "strict",
    algorithm: AlgorithmName = "multitask",
    init: Annotated[
        str,
        typer.Option(help="A prompt to begin from (file, folder, hub id), or one of: <starts>."),
    ] = "vocabulary",
    steps: Annotated[int, typer.Option(min=1, help="Outer steps.")] = 100,
    lr: Annotated[
        float | None, typer.Option(min=0, help="Outer learning rate; by default what fits the backbone.")
    ] = None,
    lr_unit: LrUnitOption = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the algorithm: --set inner_lr=3.")
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Prompt length.")] = 20,
    kind: KindName = None,
    chat: Chat = False,
    placement: PlacementName = None,
    seed: Seed = 0,
    max_input_tokens: MaxInput = None,
    force: Replace = False,
    device: Device = None,
    text_cache: TextCache = None,
) -> None:
    """Learn a start from a folder of tables. Each table is a source task. Safe to kill and repeat.

    \b
    Examples:
      softstart meta-train sources/ --out start
      softstart meta-train sources/ --out start --algorithm fomaml --set inner_lr=3.0 --steps 60
      softstart meta-train sources/ --out start --backbone google/t5-base-lm-adapt --length 100
      softstart meta-train sources/ --out start --backbone smollm2 --placement suffix
    """
    from softstart.gym.source_folder import source_tasks
    from softstart.training.chat import CHAT
    from softstart.training.distributed import this_job
    from softstart.training.encoding import TextFormat
    from softstart.yourtasks import is_named, learn_start, outer_loop
    from softstart.yourtasks.learn import learning_work
    from softstart.yourtasks.predict import LIMIT
    from softstart.yourtasks.rates import outer_rate_for

    _refuse_nearest(init)
    sets = overrides or []
    # What is wrong with these is said before anything loads.
    limit = max_input_tokens or LIMIT
    _check({"length": length, "max_input_tokens": limit}, placement, out)
    outer_loop(algorithm, steps=steps, lr=0.3 if lr is None else lr, seed=seed, overrides=sets)
    like = table("", input, output, label, labels, no_header)
    with progress_bar("reading tables"):
        tasks = source_tasks(folder, like, as_published=gym_reading == "published")
    warn_all(f"{task.name}: {note}" for task in tasks for note in task.notes)
    given = None if is_named(init) else load_prompt(init, placement=placement)
    model = backbone_of(given, backbone, device, text_cache, placement, kind, revision)
    rate, unit = outer_rate_for(model, lr, lr_unit)
    chosen, config = outer_loop(algorithm, steps=steps, lr=rate, lr_unit=unit, seed=seed, overrides=sets)
    text = TextFormat(CHAT if chat else "{input}", max_input_tokens=limit)
    theta = _begin(model, tasks, init, given, length, seed).tensor
    _warn_of_cuts(model, len(theta), tasks, text)
    if _made_before(out, learning_work(model, tasks, chosen, config, theta, text), force):
        return
    lead = this_job().lead
    with progress_bar("learning a start", config.steps, hidden=not lead) as bar:
        start = learn_start(model, tasks, chosen, config, init=theta, text=text, folder=out, progress=bar)
    if lead:
        _warn_of_peft(start)
        say(f"start of {len(tasks)} source tasks: {out}")


def _warn_of_peft(prompt: SoftPrompt) -> None:
    """Say that PEFT cannot place a prompt."""
    if not prompt.fits_peft:
        warn(f"PEFT puts prompts before the text: this {prompt.placement} prompt is for Softstart alone")


def _warn_of_cuts(model: Backbone, length: int, tasks: Sequence[Task], text: TextFormat) -> None:
    """Say which source tasks have inputs that are cut."""
    from softstart.yourtasks.lengths import cut_note

    if cut := cut_note(model, length, tasks, text):
        warn(cut)


def _refuse_nearest(init: str) -> None:
    """Refuse a start that is chosen by a target task."""
    from softstart.yourtasks.starts import chooses_by_target

    if chooses_by_target(init):
        raise SoftstartError(
            "source tasks have no target to be near to", where="--init", fix="Use average:FOLDER."
        )


def adapt(
    train: Annotated[str, typer.Option(help="Labeled rows: CSV, TSV, JSONL, parquet.")],
    init: Annotated[
        str | None,
        typer.Option(help="A learned start (file, folder, hub id), or one of: <starts>."),
    ] = None,
    test: TestRows = None,
    dev: DevRows = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tuned prompt, as a PEFT adapter.")] = None,
    backbone: PromptBackbone = None,
    revision: PromptRevision = None,
    input: Input = None,
    output: Output = None,
    label: Label = None,
    labels: LabelWords = None,
    multi_label: MultiLabel = None,
    no_header: NoHeader = False,
    metric: Annotated[str | None, typer.Option(help="One of: <metrics>.")] = None,
    scoring: ScoringName = None,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rates; the best on dev is kept.")] = None,
    lr_unit: LrUnitOption = None,
    chat: Chat = False,
    placement: PlacementName = None,
    kind: KindName = None,
    in_context: InContextRows = None,
    steps: Steps = None,
    length: Annotated[int, typer.Option(min=1, help="Prompt length, without --init.")] = 20,
    splits: Splits = None,
    seed: Seed = 0,
    max_input_tokens: MaxInput = None,
    strict: Strict = False,
    force: Replace = False,
    device: Device = None,
    text_cache: TextCache = None,
) -> None:
    """Tune a prompt on your own task. It is tuned from a learned start and from scratch: did the start help?

    With --out it is safe to kill and repeat.

    \b
    Examples:
      softstart adapt --init start --train mine.csv --test more.csv --out tuned
      softstart adapt --train mine.csv --input '{title}: {body}' --label topic --lr 0.3 --lr 0.1
      softstart adapt --train mine.csv --labels 0=hate 1=fine --scoring rank_calibrated
      softstart adapt --train tickets.csv --multi-label billing urgent spam --out tuned
    """
    from softstart.backbone import TINY
    from softstart.training.configs import AdaptConfig
    from softstart.training.distributed import this_job
    from softstart.yourtasks import is_named, levels
    from softstart.yourtasks.adapt import adapting_work
    from softstart.yourtasks.rates import rates_for, steps_for
    from softstart.yourtasks.repeating import checkpoint_of

    given = {"steps": steps or 1, "lr": lr or [], "length": length, "splits": splits or 1, "seed": seed}
    _check(given | {"max_input_tokens": max_input_tokens or 1}, placement, out)
    evaluation = scored_by(scoring)
    learned = load_prompt(init, revision, placement) if init and not is_named(init) else None
    name = backbone or (learned.backbone if learned else TINY)
    steps, splits = steps or steps_for(name), _splits(splits, dev, name)
    columns = (input, output, label, labels, no_header, multi_label)
    raw = table(train, *columns, metric=metric, test=test, dev=dev)
    task = _read(raw, splits)
    model = backbone_of(learned, name, device, text_cache, placement, kind)
    starts, length = _starts(model, task, init, learned, length, seed)
    text = _fitted(model, length, task, raw, learned, chat, max_input_tokens, strict)
    rates, unit = rates_for(model, lr, lr_unit)
    config = AdaptConfig(
        steps=steps, eval_every=max(1, steps // 12), max_tokens=2048, lr_unit=unit, stop_at_perfect=True
    )
    how: Any = {"text": text, "rates": rates, "config": config, "evaluation": evaluation, "seed": seed}
    work = adapting_work(model, task, starts, **how)
    if out and _made_before(out, work, force):
        return
    tuned = _tuned(model, task, starts, how, out and checkpoint_of(out, work))
    if this_job().lead:
        saved = _save_best(tuned, task, raw, out, work) if out else ""
        with progress_bar("testing without a prompt"):
            known = levels(model, task, text, evaluation, in_context)
        show_tuned(task, tuned, known, own_test=test is not None, saved=saved, asked=raw.multi_label)


def _check(numbers: Mapping[str, Any], placement: str | None, out: Path | None) -> None:
    """Refuse options that can be known to be wrong before anything loads."""
    from softstart.prompt import PLACEMENTS
    from softstart.prompt.formats import check_prompt_output
    from softstart.training.ranges import check_options

    check_options(numbers)
    if placement:
        PLACEMENTS.find(placement, "--placement")
    if out:
        check_prompt_output(out)


def _tuned(
    model: Backbone,
    task: Task,
    starts: Mapping[str, Tensor | SoftPrompt],
    how: Mapping[str, Any],
    checkpoint: Path | None,
) -> dict[str, Tuned]:
    """Tune from all starts."""
    from softstart.training.distributed import this_job
    from softstart.yourtasks import compare_starts

    steps = how["config"].steps * len(starts) * len(how["rates"]) * len(task.samples)
    with progress_bar("tuning", steps, hidden=not this_job().lead) as progress:
        return compare_starts(model, task, starts, **how, checkpoint=checkpoint, progress=progress)


def _made_before(out: Path, work: str, force: bool) -> bool:
    """Whether this work is finished at ``out``, which is then said; else it resumes."""
    from softstart.yourtasks.repeating import checkpoint_of, finished

    if finished(out, work, force=force):
        say(f"nothing to do: {out} is finished, from the same rows and settings")
        return True
    resumable(checkpoint_of(out, work).exists)
    return False


def _fitted(
    model: Backbone,
    length: int,
    task: Task,
    raw: RawData,
    learned: SoftPrompt | None,
    chat: bool,
    limit: int | None,
    strict: bool,
) -> TextFormat:
    """The text format as asked for or as the learned start has it, cut to the model; what is cut is said."""
    from softstart.training.chat import CHAT
    from softstart.training.encoding import TextFormat
    from softstart.yourtasks.lengths import fit_inputs, label_notes
    from softstart.yourtasks.predict import LIMIT

    of_start = learned.info.get("template") if learned else None
    wanted = TextFormat(CHAT if chat else of_start or "{input}", limit or LIMIT)
    warn_all(label_notes(model, task, wanted.chat))
    text, too_long = fit_inputs(model, length, task, wanted)
    check_lengths(too_long, text.max_input_tokens, strict, raw.input or "")
    return text


def _splits(splits: int | None, dev: str | None, backbone: str) -> int:
    """Into how many splits of train and dev the rows go."""
    from softstart.yourtasks.rates import splits_for

    if dev and splits:
        raise SoftstartError(
            "--dev and --splits cannot go together", fix="Leave one out: --dev fixes the only split."
        )
    return splits or (1 if dev else splits_for(backbone))


def _read(raw: RawData, splits: int) -> Task:
    """The task that a table is, and what is odd about it."""
    from softstart.gym.tables import whole_task

    with progress_bar("reading rows"):
        task = whole_task(raw, splits=splits)
    warn_all(task.notes)
    return task


def _starts(
    model: Backbone, task: Task, init: str | None, learned: SoftPrompt | None, length: int, seed: int
) -> tuple[dict[str, Tensor | SoftPrompt], int]:
    """What is compared: frequent words drawn for each split, and last what ``--init`` gives; and their P."""
    import torch

    from softstart.yourtasks import LEARNED, PT, plain_start

    start = _begin(model, [task], init, learned, length, seed) if init else None
    length = len(start.tensor) if start else length
    plain = torch.stack([plain_start(model, length, seed + i) for i in range(len(task.samples))])
    asked = {LEARNED if learned else f"start {init}": start} if start else {}
    return {PT: plain, **asked}, length


def _begin(
    model: Backbone, tasks: Sequence[Task], init: str, given: SoftPrompt | None, length: int, seed: int
) -> SoftPrompt:
    """What ``--init`` gives: the prompt that was read, or a start of one of the initializers."""
    from softstart.yourtasks import named_start
    from softstart.yourtasks.starts import start_on

    if given:
        return start_on(model, given, init)
    return named_start(model, init, tasks, length=length, seed=seed)


def _save_best(tuned: Mapping[str, Tuned], task: Task, raw: RawData, out: Path, work: str) -> str:
    """Save the prompt of the best start, a PEFT adapter where PEFT can use it, and how its rows are read.

    Returns:
        A line that says so: the prompt is there before anything is printed, which may fail.
    """
    from softstart.gym.multi_label import labels_asked
    from softstart.gym.tables import resolved
    from softstart.yourtasks import best_start
    from softstart.yourtasks.curves import keep_curves
    from softstart.yourtasks.reading import noted
    from softstart.yourtasks.repeating import WORK, checkpoint_of

    best = best_start(tuned)
    prompt = tuned[best].prompt
    prompt.info.update({name: value for name, value in noted(resolved(raw)).items() if value is not None})
    if raw.multi_label:
        prompt.info["asked"] = labels_asked(task.test)
    prompt.info[WORK] = work
    prompt.save_with_card(out)
    _warn_of_peft(prompt)
    keep_curves(out, {name: of.curves for name, of in tuned.items()})
    checkpoint_of(out, work).unlink(missing_ok=True)
    return f"saved: {saved_line(best, tuned, list(task.samples))}: {out}"
