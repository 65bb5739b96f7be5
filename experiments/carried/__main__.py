"""What a start of the embedded model is worth on SmolLM2, carried there through shared words, after tuning.

``python -m experiments.carried path/to/gym``: a start of 10 rows, 60 steps of multi-task learning on eight
source tasks of ``mini-cls2cls``, is carried in both ways and tuned next to two plain starts on four real
tasks. ``--start PROMPT --to gemma-3-270m`` carries a stored start of 10 rows to another backbone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

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
from softstart.gym import load_setting, open_gym
from softstart.training.optimizers import AdamW
from softstart.yourtasks import learn_start, named_start, outer_loop, plain_start

TASKS = ("glue-sst2", "tweet_eval-emotion", "sms_spam", "trec")
LENGTH, SAMPLE, RATE, TEST_ROWS = 10, 13, 0.01, 100


def learned(folder: Path) -> None:
    """Write a start of the embedded model."""
    tiny, gym = Backbone.from_pretrained("softstart/tiny", device="cpu"), open_gym("mini")
    tasks = [gym.load(name) for name in load_setting("mini-cls2cls").source[:8]]
    algorithm, config = outer_loop("multitask", steps=60, lr=0.3)
    learn_start(tiny, tasks, algorithm, config, length=LENGTH).save_pretrained(folder)


def main(gym: str, start: str | None, to: str, tasks: list[str]) -> None:
    """Print a line of Markdown for every task: test scores after 30 steps, in points."""
    target = Backbone.from_pretrained(to, device="cpu", dtype="bfloat16", placement="suffix")
    with tempfile.TemporaryDirectory() as folder:
        if start is None:
            learned(Path(folder))
        ways = ("nearest_words", "mapped")
        starts = {way: named_start(target, f"{way}:{start or folder}", []).tensor for way in ways}
    starts |= {f"plain, seed {seed}": plain_start(target, LENGTH, seed) for seed in (0, 1)}
    how = Evaluation(scoring="rank", max_tokens=8192)
    config = AdaptConfig(
        steps=30, eval_every=10, batch_size=8, optimizer=AdamW(weight_decay=0.0), max_tokens=4096
    )
    print(f"| task | {' | '.join(starts)} |\n|---|{'--:|' * len(starts)}")
    for name in tasks:
        text = TextFormat("{input}\nAnswer:", max_input_tokens=64)
        task = encode_task(open_gym(gym).load(name), target, text)
        runs = [AdaptRun(start, task, SAMPLE, RATE) for start in starts.values()]
        prompts = torch.stack([run.prompt for run in adapt(target, runs, config, how)])
        jobs = [Job(i, task, task.test.first(TEST_ROWS)) for i in range(len(starts))]
        scores = evaluate(target, prompts.to(target.prompt_dtype), jobs, how)
        print(f"| {name} | {' | '.join(f'{100 * score:.1f}' for score in scores)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.carried", description=__doc__)
    parser.add_argument("gym")
    parser.add_argument("--start")
    parser.add_argument("--to", default="smollm2")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    main(**vars(parser.parse_args()))
