"""Which learning rate, in units of a backbone's embedding, suits prompt tuning on any backbone?

    python -m benchmarks.rates run softstart/tiny mini --out runs/rates        # minutes on 2 cores
    python -m benchmarks.rates run smollm2 path/to/gym --out runs/rates        # a GPU, or --tasks 1
    python -m benchmarks.rates run gemma-3-270m path/to/gym --out runs/rates
    python -m benchmarks.rates report runs/rates                                 # the tables of README.md

Safe to kill and repeat: every task's pack is a line of ``BACKBONE.jsonl``. Rates are chosen on dev rows of
source tasks alone; held-out tasks are only scored with what was chosen and with the best of the grid.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from softstart import (
    AdaptConfig,
    AdaptRun,
    Backbone,
    Evaluation,
    Job,
    TextFormat,
    adapt,
    encode_task,
    evaluate,
)
from softstart.gym import open_gym
from softstart.gym.task import Task
from softstart.training.configs import PromptSpec
from softstart.training.optimizers import OPTIMIZERS
from softstart.training.rates import entry_size
from softstart.training.starts import draw_start

RATES = (0.01, 0.03, 0.1, 0.25, 0.4, 1.0)
"""In units of the embedding."""
SOURCE = ("tweet_eval-emotion", "sms_spam", "glue-cola", "trec", "tweet_eval-hate", "emotion")
HELD_OUT = ("glue-sst2", "hate_speech_offensive", "circa", "sick", "glue-mrpc", "climate_fever")
"""Of the real gym; the mini gym's classification tasks are dealt in turn."""
SAMPLE, TEST_ROWS, LENGTH = 13, 100, 20
TRIED = ("adafactor", "adamw")
"""Optimizers."""
GRID = 2
"""How many rates a run of ``softstart adapt`` tries; the better one by dev is kept."""


def parts_of(gym: Any, mini: bool) -> dict[str, list[Task]]:
    """Source and held-out tasks."""
    if not mini:
        return {"source": [gym.load(n) for n in SOURCE], "held out": [gym.load(n) for n in HELD_OUT]}
    tasks = [task for name in gym.tasks() if (task := gym.load(name)).kind == "classification"]
    return {"source": tasks[::2][:6], "held out": tasks[1::2][:6]}


def run(arguments: argparse.Namespace) -> None:
    """Tune every task with every optimizer and rate; a line a task and optimizer."""
    torch.set_num_threads(arguments.threads)
    kind = "" if arguments.kind == "embeddings" else f"-{arguments.kind}"
    out = arguments.out / f"{arguments.backbone.replace('/', '-').replace(':', '-')}{kind}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["task"], row["optimizer"]) for row in read(out)}
    gym = open_gym(arguments.gym)
    backbone = Backbone.from_pretrained(
        arguments.backbone, device=arguments.device, dtype=arguments.dtype, placement=arguments.placement,
        prompt_kind=arguments.kind,
    )  # fmt: skip
    text = TextFormat(arguments.template, max_input_tokens=arguments.max_input_tokens)
    how = Evaluation(scoring="rank", max_tokens=8192)
    entry = float(torch.as_tensor(entry_size(backbone)).median())
    start = draw_start(backbone, PromptSpec(length=LENGTH, frequent="words"), (), 0)
    for part, tasks in parts_of(gym, arguments.gym == "mini").items():
        for task in tasks[: arguments.tasks]:
            encoded = encode_task(task, backbone, text)
            for name in arguments.optimizers:
                if (task.name, name) in done:
                    continue
                config = AdaptConfig(
                    steps=arguments.steps, eval_every=max(1, arguments.steps // 10), batch_size=8,
                    optimizer=OPTIMIZERS[name](), lr_unit="embedding", max_tokens=4096,
                )  # fmt: skip
                runs = [AdaptRun(start, encoded, SAMPLE, rate) for rate in RATES]
                tuned = adapt(backbone, runs, config, how)
                test = encoded.test.first(TEST_ROWS)
                prompts = torch.stack([result.prompt for result in tuned]).to(backbone.device)
                jobs = [Job(i, encoded, test) for i in range(len(RATES))]
                scores = evaluate(backbone, prompts, jobs, how)
                line = {
                    "backbone": backbone.name, "weights": backbone.weights, "entry": entry,
                    "part": part, "task": task.name, "optimizer": name, "rates": RATES,
                    "steps": arguments.steps, "template": arguments.template, "dtype": arguments.dtype,
                    "placement": arguments.placement, "start": tuned[0].curve[0][1],
                    "dev": [result.dev for result in tuned], "test": scores,
                    "loss": [result.curve[-1][2] for result in tuned],
                    "last": [result.curve[-1][1] for result in tuned],
                    "device": str(backbone.device), "torch": torch.__version__,
                }  # fmt: skip
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{part:9}{task.name:28}{name:11}", *(f"{dev:6.2f}" for dev in line["dev"]), flush=True)


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a file, or none."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pairs() -> Iterable[tuple[int, ...]]:
    """Neighboring rates, as grids of ``GRID``."""
    return (tuple(range(i, i + GRID)) for i in range(len(RATES) - GRID + 1))


def by_grid(rows: list[dict[str, Any]], key: str) -> dict[tuple[int, ...], float]:
    """Mean over tasks of what a grid gives: the score of its rate with the best dev score."""
    found = {}
    for grid in pairs():
        scores = [row[key][max(grid, key=lambda i: row["dev"][i])] for row in rows]
        found[grid] = statistics.mean(scores)
    return found


def report(folder: Path) -> None:
    """Print what was chosen on source tasks, and how near it comes to the best of the grid elsewhere."""
    total: dict[tuple[str, tuple[int, ...]], list[float]] = defaultdict(list)
    for file in sorted(folder.glob("*.jsonl")):
        rows = read(file)
        for name in TRIED:
            of = [row for row in rows if row["optimizer"] == name]
            source = [row for row in of if row["part"] == "source"]
            held = [row for row in of if row["part"] == "held out"]
            if not source or not held:
                continue
            dev, test = by_grid(source, "dev"), by_grid(held, "test")
            whole = [row["test"][max(range(len(RATES)), key=lambda i: row["dev"][i])] for row in held]
            print(f"\n{file.stem}, {name}: {len(source)} source and {len(held)} held-out tasks")
            print("| rates | source dev | held-out test |\n|---|---|---|")
            for grid in pairs():
                rates = ", ".join(f"{RATES[i]:g}" for i in grid)
                print(f"| {rates} | {100 * dev[grid]:.1f} | {100 * test[grid]:.1f} |")
                total[name, grid].append(dev[grid] - max(dev.values()))
            print(f"| all six | | {100 * statistics.mean(whole):.1f} |")
    if total:
        best = max(total, key=lambda key: statistics.mean(total[key]))
        print(f"\nleast lost over backbones on source dev: {best[0]}", *(f"{RATES[i]:g}" for i in best[1]))


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("backbone")
    one.add_argument("gym")
    one.add_argument("--out", type=Path, default=Path("runs/rates"))
    one.add_argument("--steps", type=int, default=100)
    one.add_argument("--tasks", type=int, default=6, help="of each part")
    one.add_argument("--optimizers", nargs="+", choices=TRIED, default=list(TRIED))
    one.add_argument("--template", default="{input}")
    one.add_argument("--placement", default="prefix")
    one.add_argument("--kind", default="embeddings")
    one.add_argument("--max-input-tokens", type=int, default=96)
    one.add_argument("--dtype", default="float32")
    one.add_argument("--device")
    one.add_argument("--threads", type=int, default=1)
    two = commands.add_parser("report")
    two.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    run(arguments) if arguments.command == "run" else report(arguments.folder)


if __name__ == "__main__":
    main()
