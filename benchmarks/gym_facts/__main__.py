"""Measure every mini task with the embedded model and write ``src/softstart/gym/mini/facts.json``.

    python -m benchmarks.gym_facts [--fine-tune targets|all|none] [--threads 1]

Plain prompt tuning and zero-shot for all tasks, then full fine-tuning for the tasks that the settings of the
mini gym use as targets (or for all), both on samples that no study uses. What is in the file already is kept
if task, backbone and settings are the same, so the command can be killed and repeated. Choose the split of
the gym by running it; never by looking at a learned start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import torch

from softstart.backbone import TINY, Backbone, Decoding, load_backbone
from softstart.gym.mini import MiniGym, facts, mini_settings
from softstart.gym.mini.facts import Facts, levels
from softstart.gym.mini.split import split
from softstart.gym.mini.tasks import TASKS
from softstart.gym.mini.versions import versions
from softstart.storage.files import atomic
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, FineTuneConfig, PromptSpec
from softstart.training.encoding import EncodedTask, TextFormat, encode_task
from softstart.training.evaluation import Evaluation, Job, evaluate, no_prompt
from softstart.training.finetuning import finetune, score_finetuned
from softstart.training.starts import draw_start

SAMPLES = (1001, 1002)
PROMPT, LR = PromptSpec(length=20), 0.3
ADAPT = AdaptConfig(steps=60, batch_size=8, eval_every=20, max_tokens=4096)
FINE_TUNE, FINE_TUNE_LR, FINE_TUNE_SAMPLES = (
    FineTuneConfig(steps=60, batch_size=8, eval_every=20),
    3e-3,
    (1001,),
)
HOW = Evaluation(Decoding(max_new_tokens=16), max_tokens=8192)
TEXT = TextFormat(template="{input}")
TASKS_A_PACK = 4

SETTINGS = {
    "prompt tuning": f"length {PROMPT.length}, {PROMPT.init} start, {ADAPT.steps} steps of "
    f"{ADAPT.batch_size} rows, learning rate {LR}, best of dev every {ADAPT.eval_every} steps, "
    f"mean of samples {SAMPLES}",
    "fine-tuning": f"{FINE_TUNE.steps} steps of {FINE_TUNE.batch_size} rows, learning rate "
    f"{FINE_TUNE_LR}, best of dev every {FINE_TUNE.eval_every} steps, samples {FINE_TUNE_SAMPLES}",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fine-tune", choices=("targets", "all", "none"), default="targets")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(TINY, device="cpu")
    gym, probes = MiniGym(), MiniGym(SAMPLES)
    began, known = time.process_time(), _known(backbone)
    digests = {name: gym.load(name).digest for name in gym.tasks()}
    known = {name: fact for name, fact in known.items() if digests.get(name) == fact.digest}
    waiting = [name for name in gym.tasks() if name not in known or known[name].pt is None]
    for i in range(0, len(waiting), TASKS_A_PACK):
        names = waiting[i : i + TASKS_A_PACK]
        encoded = {name: encode_task(probes.load(name), backbone, TEXT) for name in names}
        scores, zero = _prompt_tune(backbone, encoded), _zero_shot(backbone, encoded.values())
        for name, pt, zero_shot in zip(names, scores, zero, strict=True):
            fixed = levels(probes.load(name))
            known[name] = Facts(digests[name], **fixed, zero_shot=round(zero_shot, 4), pt=round(pt, 4))
            _say(name, known[name], began)
        _write(backbone, known)
    for name in _to_fine_tune(arguments.fine_tune):
        if known[name].ft is None:
            task = encode_task(probes.load(name), backbone, TEXT)
            known[name] = replace(known[name], ft=round(_fine_tune(backbone, task), 4))
            _say(name, known[name], began)
            _write(backbone, known)
    _write(backbone, known)
    print(f"{time.process_time() - began:.0f} CPU seconds")


def _known(backbone: Backbone) -> dict[str, Facts]:
    content = facts.read()
    if content.get("backbone") != backbone.digest or content.get("settings") != SETTINGS:
        return {}
    return {name: Facts(**values) for name, values in content["tasks"].items()}


def _write(backbone: Backbone, known: dict[str, Facts]) -> None:
    head: dict[str, Any] = {"settings": SETTINGS, "backbone": backbone.digest}
    rows = [f"  {json.dumps(name)}: {json.dumps(asdict(known[name]))}" for name in sorted(known)]
    text = json.dumps(head, indent=1)[:-2] + ',\n "tasks": {\n' + ",\n".join(rows) + "\n }\n}\n"
    with atomic(facts.FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _to_fine_tune(which: str) -> Iterable[str]:
    if which == "none":
        return []
    if which == "all":
        return MiniGym().tasks()
    facts.facts.cache_clear()  # the rule below reads the scores just written
    settings = [*split(TASKS).values(), *(s for v in versions() for s in mini_settings(v).values())]
    return sorted({name for setting in settings for name in setting.target})


def _prompt_tune(backbone: Backbone, tasks: dict[str, EncodedTask]) -> list[float]:
    runs = [
        AdaptRun(draw_start(backbone, PROMPT, [task], 0, sample), task, sample, LR)
        for name, task in tasks.items()
        for sample in SAMPLES
    ]
    prompts = torch.stack([result.prompt for result in adapt(backbone, runs, ADAPT, HOW)])
    scores = evaluate(backbone, prompts, [Job(i, run.task, run.task.test) for i, run in enumerate(runs)], HOW)
    each = len(SAMPLES)
    return [sum(scores[i : i + each]) / each for i in range(0, len(scores), each)]


def _zero_shot(backbone: Backbone, tasks: Iterable[EncodedTask]) -> list[float]:
    return evaluate(backbone, no_prompt(backbone), [Job(0, task, task.test) for task in tasks], HOW)


def _fine_tune(backbone: Backbone, task: EncodedTask) -> float:
    tuned = [finetune(backbone, task, sample, FINE_TUNE_LR, FINE_TUNE, HOW) for sample in FINE_TUNE_SAMPLES]
    scores = score_finetuned(backbone, tuned, task, HOW)
    return sum(assessed.score for assessed in scores) / len(scores)


def _say(name: str, fact: Facts, began: float) -> None:
    print(f"{time.process_time() - began:6.0f} s  {name:20} {fact}", flush=True)


if __name__ == "__main__":
    main()
