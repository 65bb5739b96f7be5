"""What ranking by other values changes: every scoring on the classification tasks of the mini gym.

    python -m benchmarks.scorings [--tasks 8] [--steps 60]

One prompt for each task and sample, tuned with the plain scoring, is scored on the test set in every way; so
is the model without a prompt. Only how labels are compared differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from softstart.analysis.units import points
from softstart.backbone import TINY, Backbone, load_backbone
from softstart.gym import load_setting, open_gym
from softstart.gym.task import Example, Sample, Task
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, PromptSpec
from softstart.training.encoding import EncodedTask, TextFormat, encode_task
from softstart.training.evaluation import SCORINGS, Evaluation, Job, evaluate, no_prompt
from softstart.training.starts import draw_start

SETTINGS = ("mini-cls2cls", "mini-random")
SAMPLES = (13, 21)
LENGTH, LR = 20, 0.3
LONGER = " in the end"
BOUND = 8192


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    backbone, gym = load_backbone(TINY, device="cpu"), open_gym("mini")
    names = dict.fromkeys(name for setting in SETTINGS for name in load_setting(setting).target)
    loaded = [task for task in map(gym.load, names) if task.labels][: arguments.tasks]
    for words, made in (("as they are", loaded), ("every second one longer", map(_lengthened, loaded))):
        tasks = [encode_task(task, backbone, TextFormat("{input}")) for task in made]
        nothing = no_prompt(backbone).expand(len(tasks), -1, -1)
        jobs = [Job(i, task, task.test) for i, task in enumerate(tasks)]
        _show(f"Labels {words}, no prompt", tasks, _scores(backbone, nothing, jobs, 1))
        config = AdaptConfig(steps=arguments.steps, eval_every=20, max_tokens=BOUND)
        start = draw_start(backbone, PromptSpec(length=LENGTH), (), 0)
        runs = [AdaptRun(start, task, sample, LR, i) for task in tasks for i, sample in enumerate(SAMPLES)]
        tuned = adapt(backbone, runs, config, Evaluation(scoring="rank", max_tokens=BOUND))
        jobs = [Job(i, run.task, run.task.test) for i, run in enumerate(runs)]
        stack = torch.stack([result.prompt for result in tuned])
        title = f"Labels {words}, prompts tuned for {arguments.steps} steps, mean of samples {SAMPLES}"
        _show(title, tasks, _scores(backbone, stack, jobs, len(SAMPLES)))


def _lengthened(task: Task) -> Task:
    """The same task with more words in every second label."""
    words = {label: label + LONGER * (i % 2) for i, label in enumerate(task.labels)}

    def renamed(rows: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(Example(row.input, (words[row.outputs[0]],)) for row in rows)

    samples = {s: Sample(s, renamed(of.train), renamed(of.dev)) for s, of in task.samples.items()}
    return replace(task, samples=samples, test=renamed(task.test))


def _scores(backbone: Backbone, stack: Tensor, jobs: Sequence[Job], each: int) -> dict[str, list[float]]:
    """Test scores of every task under every scoring: means of ``each`` neighbors."""
    found = {}
    for name in SCORINGS:
        flat = evaluate(backbone, stack, jobs, Evaluation(scoring=name, max_tokens=BOUND))
        found[name] = [sum(flat[i : i + each]) / each for i in range(0, len(flat), each)]
    return found


def _show(title: str, tasks: Sequence[EncodedTask], scores: Mapping[str, Sequence[float]]) -> None:
    print(f"\n{title}\n\n| task | tokens of the labels | {' | '.join(scores)} |")
    print(f"|---|--:|{'--:|' * len(scores)}")
    for i, task in enumerate(tasks):
        sizes = sorted({len(ids) for ids in task.label_ids})
        values = " | ".join(f"{points(of[i]):.1f}" for of in scores.values())
        print(f"| {task.name} | {', '.join(map(str, sizes))} | {values} |")
    means = " | ".join(f"{points(sum(of) / len(of)):.1f}" for of in scores.values())
    print(f"| mean | | {means} |", flush=True)


if __name__ == "__main__":
    main()
