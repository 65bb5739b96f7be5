"""What a whole set of runs takes when those that stop early give their places in the pack to others.

``python -m benchmarks.adaptation.places [--backbone NAME] [--runs 32] [--places 8] [--rounds 5]``: the same
runs, with a patience, a rung and rarer evaluations as under the preset ``fast``, once in packs that shrink,
once through as many places that are filled again, and once in packs of which no run stops; ``--whole`` adds
one pack of all runs. They take turns; every round gives a ratio.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from softstart.backbone import TINY, Backbone, load_backbone
from softstart.gym import open_gym
from softstart.study import Study
from softstart.study.declare.presets import filled
from softstart.training.adaptation import Adapted, AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.places import whole_groups
from softstart.training.starts import draw_start

TASKS = ("claim_city", "topic_of_reader", "taste_for_guest", "home_of_lost", "find_sender", "drop_first")
RATES = (0.5, 0.3)


@dataclass
class Way:
    """A way to train the runs: the parts that are calls of ``adapt``, and what was seen of it."""

    parts: Sequence[Sequence[int]]
    places: int | None
    config: AdaptConfig
    seconds: list[float]
    steps: int = 0
    results: Sequence[Adapted] = ()


def main() -> None:
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    backbone = load_backbone(asked.backbone, device=asked.device)
    study = Study.model_validate(filled({"name": "places", "preset": "fast", "setting": "cls2cls"}))
    every = max(1, asked.steps // 20)  # of 2,000 steps: every 100; patience 8; a rung at 60 %
    config = replace(
        study.adaptation, steps=asked.steps, eval_every=every, rungs=(12 * every,), batch_size=asked.batch,
        max_tokens=asked.max_tokens, lr_unit="absolute" if asked.backbone == TINY else "embedding",
    )  # fmt: skip
    runs = _runs(backbone, asked.runs, asked.length, asked.dev_rows)
    packs = whole_groups([run.group for run in runs], asked.places)
    ways = {
        f"packs of {asked.places}": Way(packs, None, config, []),
        f"{asked.places} places, filled again": Way([range(len(runs))], asked.places, config, []),
        f"packs of {asked.places}, no run stopped": Way(
            packs, None, replace(config, patience=None, rungs=()), []
        ),
    }
    if asked.whole:
        ways["all at once"] = Way([range(len(runs))], None, config, [])
    for number in range(asked.rounds):
        for way in ways.values():
            _train(way, lambda part, way, count: adapt(
                backbone, [runs[i] for i in part], way.config, study.evaluation, places=way.places,
                progress=count,
            ))  # fmt: skip
        print(
            f"round {number + 1}: " + ", ".join(f"{w.seconds[-1]:.1f} s" for w in ways.values()), flush=True
        )
    _report(ways, config, asked.places)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation.places", description=__doc__)
    parser.add_argument("--backbone", default=TINY)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=32, help="pairs of learning rates on tasks and samples")
    parser.add_argument("--places", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="rows of a run in a step")
    parser.add_argument("--length", type=int, default=20, help="rows of a prompt")
    parser.add_argument("--dev-rows", type=int, default=32, help="of a run, at most")
    parser.add_argument("--max-tokens", type=int, default=2048, help="of a forward pass")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--whole", action="store_true", help="also all runs in one pack")
    return parser.parse_args()


def _runs(backbone: Backbone, count: int, length: int, dev_rows: int) -> list[AdaptRun]:
    """Pairs of learning rates that are rivals, on samples of tasks in turn."""
    gym = open_gym()
    tasks = [encode_task(gym.load(name), backbone, TextFormat("{input}")) for name in TASKS]
    tasks = [replace(task, dev={s: dev.first(dev_rows) for s, dev in task.dev.items()}) for task in tasks]
    spec = Study.model_validate(filled({"name": "x", "preset": "tiny", "setting": "mini-cls2cls"})).prompt
    start = draw_start(backbone, spec.model_copy(update={"length": length}), tasks, 0)
    cells = [(task, sample) for sample in tasks[0].train for task in tasks]
    return [
        AdaptRun(start, task, sample, lr, group=f"{task.name} {sample}")
        for task, sample in cells
        for lr in RATES
    ][:count]


def _train(way: Way, train: Callable[..., list[Adapted]]) -> None:
    calls = 0

    def count(done: float, note: str = "") -> None:
        nonlocal calls
        calls += 1

    began = time.perf_counter()
    way.results = [result for part in way.parts for result in train(part, way, count)]
    way.seconds.append(time.perf_counter() - began)
    way.steps = calls - len(way.parts)  # one call before the first step


def _report(ways: dict[str, Way], config: AdaptConfig, places: int) -> None:
    first = next(iter(ways.values()))
    steps = [result.steps for result in first.results]
    saved = 1 - sum(steps) / (len(steps) * config.steps)
    print(f"\n{len(steps)} runs of at most {config.steps} steps; {100 * saved:.0f} % of them are saved\n")
    print("| way | steps of packs | busy places | seconds, median [min–max] | faster than packs by |")
    print("|---|---|---|---|---|")
    for name, way in ways.items():
        ratios = [old / new for old, new in zip(first.seconds, way.seconds, strict=True)]
        of = len(steps) if way.places is None and len(way.parts) == 1 else places
        print(
            f"| {name} | {way.steps} | {100 * sum(r.steps for r in way.results) / way.steps / of:.0f} % "
            f"| {_spread(way.seconds, 1)} | {_spread(ratios, 2)} |"
        )
    for name, way in list(ways.items())[1:]:
        if way.config is not first.config:
            continue
        pairs = list(zip(first.results, way.results, strict=True))
        apart = max(float((a.prompt - b.prompt).norm() / a.prompt.norm()) for a, b in pairs)
        other = sum((a.steps, a.dev) != (b.steps, b.dev) for a, b in pairs)
        print(
            f"\n{name}: prompts differ by {apart:.1e} at most, {other} runs in their steps or best dev score"
        )


def _spread(numbers: Sequence[float], digits: int) -> str:
    low, high = min(numbers), max(numbers)
    return f"{median(numbers):.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"


if __name__ == "__main__":
    main()
