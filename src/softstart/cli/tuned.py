"""How the prompts that ``softstart adapt`` tuned came out, as it prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from softstart.cli.terminal import new_table, say, show_table, warn
from softstart.errors import listed

if TYPE_CHECKING:
    from softstart.gym.task import Task
    from softstart.yourtasks import Levels, Scored, Tuned


def show_tuned(
    task: Task,
    tuned: Mapping[str, Tuned],
    known: Levels,
    *,
    own_test: bool,
    saved: str = "",
    asked: Sequence[str] = (),
) -> None:
    """Print the scores of all starts beside those that need no tuning, and what they say.

    Args:
        task: what was tuned on.
        tuned: every start, plain prompt tuning first.
        known: zero-shot, majority and chance.
        own_test: whether the test rows are from a file of their own.
        saved: what was saved where, in words.
        asked: the columns of several labels a row: the rows of the task are questions about them.
    """
    from softstart.analysis.units import percent, points
    from softstart.training.evaluation import SCORINGS
    from softstart.yourtasks import PT, verdict

    scoring = next(iter(tuned.values())).prompt.info["scoring"]
    title = f"{task.name}: {task.metric}, {SCORINGS.find(scoring).label}"
    written = [] if not task.labels or SCORINGS.find(scoring).ranks else ["no label %"]
    table = new_table("start", "dev", "test", "from … to", "lr", "best step", *written, title=title)
    for name, of in tuned.items():
        spread = f"{points(min(of.tests)):.1f} … {points(max(of.tests)):.1f}"
        outside = [f"{percent(of.outside or 0.0):.0f}"] if written else []
        table.add_row(
            name, f"{points(of.dev):.1f}", f"{points(of.test):.1f}", spread, f"{of.lr:g}", str(of.best_step),
            *outside,
        )  # fmt: skip
    named = {
        "no prompt (zero-shot)": known.zero_shot,
        "train rows before the text (in-context)": known.in_context,
        "majority answer": known.blind.majority,
        "chance": known.blind.chance,
    }
    for name, value in named.items():
        if value is not None:
            table.add_row(name, "", f"{points(value):.1f}")
    show_table(table)
    sample, splits = next(iter(task.samples.values())), len(task.samples)
    say(
        f"{len(sample.train)} rows to learn from, {len(sample.dev)} dev, {len(task.test)} test"
        + ("" if own_test else " (a fifth of --train)")
        + (f"; means over {splits} splits of train and dev" if splits > 1 else "")
    )
    if asked:
        say(f"macro-F1 over the labels on test: {', '.join(_macro(task, tuned))}")
    for name, of in tuned.items():
        if of.diverged:
            warn(
                f"{name}: {len(of.diverged)} runs diverged ({listed(of.diverged)}); they count up to there. "
                "A lower --lr may be better"
            )
        if name == PT:
            continue
        if nearest := of.prompt.info.get("nearest"):
            say(f"nearest source: {', '.join(nearest)}")
        gains = [a - b for a, b in zip(of.tests, tuned[PT].tests, strict=True)]
        say(f"the {name} {verdict(gains, of.gain)}")
    for line in (*odd_results(task, tuned, known), *([saved] if saved else [])):
        say(line)


def _macro(task: Task, tuned: Mapping[str, Tuned]) -> Iterator[str]:
    """Every start with the macro-F1 of its answers about labels, a mean over samples."""
    from softstart.analysis.units import points
    from softstart.gym.multi_label import macro_f1

    for name, of in tuned.items():
        found = [macro_f1(answers, task.test) for answers in of.answers]
        yield f"{name} {points(sum(found) / len(found)):.1f}"


def odd_results(task: Task, tuned: Mapping[str, Tuned], known: Levels) -> Iterator[str]:
    """What a reader must know before believing the scores: at zero, at chance, a loss that did not move."""
    from softstart.analysis.units import percent, points
    from softstart.backbone import TINY

    at_chance = False
    for name, of in tuned.items():
        if not any(of.tests):
            junk = of.outside is not None and of.outside > 0.5
            why = f": {percent(of.outside or 0.0):.0f} % of its outputs are no label" if junk else ""
            yield f"{name}: no test row is right{why}"
        elif of.low <= known.blind.best:
            chance = sum(of.tests) / len(of.tests) <= known.blind.best
            yield (
                f"{name}: {'at chance: not above' if chance else 'cannot be told from'} "
                f"{points(known.blind.best):.1f}, what guessing or one answer scores "
                f"(95 % interval of its prompt {points(of.low):.1f} to {points(of.high):.1f}, "
                f"{len(task.test)} test rows)"
            )
            at_chance = True
        if of.never_moved:
            yield f"{name}: no dev score was above zero, so the start itself was kept, untrained"
        elif of.best_step == 0:
            yield f"{name}: its prompt is the start itself, untrained: no later dev score was better"
        if of.still:
            first, last = of.losses[0]
            moved = f"({first:.3g} to {last:.3g})"
            yield f"{name}: the training loss did not move {moved}; try other rates with --lr"
    if at_chance and all(of.prompt.backbone == TINY for of in tuned.values()):
        yield "the embedded model knows generated text alone: for real text give --backbone smollm2"


def saved_line(name: str, tuned: Mapping[str, Tuned], samples: Sequence[int]) -> str:
    """Which prompt is kept, and why."""
    from softstart.analysis.units import points

    of = tuned[name]
    split = f", split {samples.index(of.sample) + 1} of {len(samples)}" if len(samples) > 1 else ""
    means = f"the best mean dev score of {len(tuned)} starts, " if len(tuned) > 1 else ""
    best = f"dev {points(max(of.devs)):.1f}"
    return f"{name}{split} ({means}{best})"


def score_line(scored: Scored) -> str:
    """What ``softstart evaluate`` says of one prompt."""
    from softstart.analysis.units import percent, points
    from softstart.training.evaluation import SCORINGS

    way = SCORINGS.find(scored.scoring)
    junk = scored.outside is not None and not way.ranks
    outside = f", {percent(scored.outside or 0.0):.0f} % no label" if junk else ""
    macro = "" if scored.macro is None else f", macro-F1 {points(scored.macro):.1f}"
    return f"{scored.metric} {points(scored.score):.1f}{macro} on {scored.rows} rows ({way.label}{outside})"


def show_scores(found: Mapping[str, Scored]) -> None:
    """Print the scores of several prompts."""
    from softstart.analysis.units import points
    from softstart.training.evaluation import SCORINGS

    table = new_table("prompt", "metric", "score", "rows", "by")
    for name, of in found.items():
        macro = "" if of.macro is None else f", macro-F1 {points(of.macro):.1f}"
        label = SCORINGS.find(of.scoring).label
        table.add_row(name, of.metric, f"{points(of.score):.1f}{macro}", str(of.rows), label)
    show_table(table)
