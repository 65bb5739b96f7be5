"""In-context learning (Brown et al., 2020): rows with their answers are read before every text.

As in MetaICL (Min et al., 2022), demonstrations are drawn from the k-shot train rows without a balance of
classes, and scores are means over several draws. As many are read as fit into the window next to the text and
its output; the order of a draw is fixed, and a long text drops the last ones. No source task is used and
nothing is trained. CrossFit (Ye et al., 2021) has no such baseline: its models read one text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.training.baselines.base import TRAIN, Given, Learned, Test, Unpacked
from softstart.training.baselines.zero_shot import ScoringName
from softstart.training.demonstrations import demonstrations
from softstart.training.encoding import EncodedTask, Rows, rng_for
from softstart.training.evaluation import Assessment, Evaluation, Job, assess, no_prompt

NO_WINDOW = 512
"""Tokens read by a backbone whose window is unbounded: T5's were trained on texts of this length."""
TOKEN_BYTES = 4
"""Of a stored token id."""


@dataclass(frozen=True)
class InContext(Unpacked):
    """Demonstrations from the target's own train rows, in several random orders."""

    label: ClassVar[str] = "In-context"
    color: ClassVar[str | None] = "#70a664"
    uses: ClassVar[tuple[str, ...]] = (TRAIN,)
    trains: ClassVar[str] = "nothing"
    work: ClassVar[str] = "in-context prediction"
    demonstrations: int | None = None
    """Read at most this many; None: as many as the window holds."""
    draws: int = 3
    """Scores are means over this many draws."""
    separator: str | None = "\n\n"
    """Between demonstrations; None, or where the tokenizer has no token for it (T5's): the end token."""
    most_tokens: int | None = None
    """Read at most this many tokens; None: the window, or 512 where it is unbounded."""
    scoring: ScoringName = None
    """As of ``ZeroShot``."""

    def cost(self, train: int) -> tuple[float, float, float]:
        """As of ``Unpacked``, with as many evaluations as draws; their longer rows are not counted."""
        return 0.0, self.draws, self.draws

    def predicts_with(self, evaluation: Evaluation) -> Evaluation:
        """Under its own scoring."""
        return replace(evaluation, scoring=self.scoring) if self.scoring else evaluation

    def run(self, given: Given, test: Test) -> Learned:
        """Nothing is learned: dev rows are scored only to be shown."""
        tasks = [self.demonstrated(given, draw) for draw in range(self.draws)]

        def scored(rows_of: Sequence[Rows]) -> Assessment:
            jobs = [Job(0, task, rows) for task, rows in zip(tasks, rows_of, strict=True)]
            nothing, evaluation = no_prompt(given.backbone), self.predicts_with(given.evaluation)
            return mean_of([assess(given.backbone, nothing, [job], evaluation)[0] for job in jobs])

        dev = scored([task.dev[given.sample] for task in tasks]).score
        given.progress(0.5)
        test(0, lambda: scored([task.test for task in tasks]))
        given.progress(0.5)
        kept = sum(sum(map(len, self._parts(given, draw))) for draw in range(self.draws))
        return Learned(dev=dev, curve=[(0, dev, math.nan)], stored=TOKEN_BYTES * kept // self.draws)

    def demonstrated(self, given: Given, draw: int) -> EncodedTask:
        """The task with a draw of demonstrations before every dev and test text.

        Args:
            given: backbone, task, sample and seed; the rest is not used.
            draw: its number.

        Raises:
            SoftstartError: a text that leaves no room for its output.
        """
        backbone, task = given.backbone, given.task
        parts = self._parts(given, draw)
        window = self.most_tokens or backbone.window or NO_WINDOW
        if backbone.window is not None:
            window = min(window, backbone.window)
        room = window - (task.max_new_tokens if backbone.continues_input else 0)

        def shown(rows: Rows) -> Rows:
            return replace(
                rows, inputs=[_before(backbone, parts, ids, room, task.name) for ids in rows.inputs]
            )

        dev = {given.sample: shown(task.dev[given.sample])}
        return replace(task, dev=dev, test=shown(task.test), content_free=shown(task.content_free))

    def _parts(self, given: Given, draw: int) -> list[list[int]]:
        """The token ids of every demonstration of a draw, in order, each with its separator."""
        rows, rng = given.task.train[given.sample], rng_for(given.seed, given.sample, draw, 4)
        order = rng.permutation(rows.trainable).tolist()[: self.demonstrations]
        return demonstrations(given.backbone.tokenizer, rows.pick(order, rng), self.separator)


def _before(
    backbone: Backbone, parts: Sequence[Sequence[int]], text: list[int], room: int, name: str
) -> list[int]:
    """A text after as many demonstrations as fit; a begin token stays in front."""
    left = room - len(text)
    if left < 0:
        raise SoftstartError(
            f"a text of {len(text)} tokens leaves no room for an output within {room}",
            where=f"task '{name}'",
            fix="Lower text.max_input_tokens.",
        )
    context: list[int] = []
    for part in parts:
        if len(context) + len(part) > left:
            break
        context += part
    begin = text[:1] if text[:1] == [backbone.tokenizer.bos_token_id] else []
    return [*begin, *context, *text[len(begin) :]]


def mean_of(assessments: Sequence[Assessment]) -> Assessment:
    """Means of scores, and of what is reported with them."""
    names: Mapping[str, float] = assessments[0].companions
    return Assessment(
        fmean(each.score for each in assessments),
        {name: fmean(each.companions[name] for each in assessments) for name in names},
    )
