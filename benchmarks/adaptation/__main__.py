"""Which share of adaptation time goes into dev evaluations under the preset ``fast``.

``python -m benchmarks.adaptation [--tasks …] [--steps N]``: one run of each task on
the embedded backbone, in one process. Preset values but for the steps, which ``--steps`` cuts short: later
evaluations are rarer, so that a whole run spends less on them than what is printed here.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from softstart.backbone import TINY, load_backbone
from softstart.gym import open_gym
from softstart.study import Study
from softstart.study.declare.presets import filled
from softstart.training import adaptation
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.encoding import TextFormat, encode_task


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=[], help="of the mini gym; one in six by default")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    backbone, gym = load_backbone(TINY, device="cpu"), open_gym()
    study = Study.model_validate(filled({"name": "share", "preset": "fast", "setting": "cls2cls"}))
    config = replace(study.adaptation, steps=asked.steps, max_tokens=2048, patience=None, rungs=())
    clock: dict[str, float] = {}
    adaptation.evaluate = _timed(adaptation.evaluate, clock)
    print("| task | metric | labels | dev rows | training, s | dev evaluations | they take, s | share |")
    print("|---|---|---|---|---|---|---|---|")
    whole = spent = 0.0
    for name in asked.tasks or gym.tasks()[::6]:
        task = encode_task(gym.load(name), backbone, TextFormat())
        sample, clock["s"] = next(iter(task.train)), 0.0
        began = time.perf_counter()
        start = backbone.vocabulary[: study.prompt.length].to(backbone.prompt_dtype)
        (run,) = adapt(backbone, [AdaptRun(start, task, sample, 0.5)], config, study.evaluation)
        seconds = time.perf_counter() - began
        whole, spent = whole + seconds, spent + clock["s"]
        rows = len(task.dev[sample])
        print(
            f"| {name} | {task.metric} | {len(task.labels) or ''} | {rows} | {seconds - clock['s']:.1f} "
            f"| {len(run.curve)} | {clock['s']:.2f} | {100 * clock['s'] / seconds:.1f} % |",
            flush=True,
        )
    print(f"| all | | | | {whole - spent:.1f} | | {spent:.2f} | {100 * spent / whole:.1f} % |")


def _timed(function: Callable[..., Any], clock: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            clock["s"] = clock.get("s", 0.0) + time.perf_counter() - began

    return timed


if __name__ == "__main__":
    main()
