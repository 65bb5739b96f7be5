"""What every process of a job does: started by torchrun with a folder, each writes what it got."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch

from helpers.episodes import SMALL
from helpers.models import prompts, random_t5, toy_encoded
from softstart.progress import silent
from softstart.storage.tensors import save_tensors
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig, MetaConfig
from softstart.training.distributed import this_job
from softstart.training.evaluation import Evaluation
from softstart.training.meta_training import meta_train

STEPS = 3
SIZES = (3, 1)
"""Meta-batches: one that two processes share unevenly, and one that leaves all but the first idle."""


def learned(backbone, tasks):
    """Every algorithm's start, curve and work on both sizes of meta-batch."""
    steppers = {name: each for name, each in SMALL.items() if hasattr(each, "meta_gradient")}
    assert len(steppers) >= 7
    for name, algorithm in steppers.items():
        for size in SIZES if name in ("maml", "multitask") else SIZES[:1]:
            config = MetaConfig(steps=STEPS, meta_batch=size, lr=0.1, max_tokens=60)
            found = meta_train(backbone, algorithm, tasks, prompts(backbone)[0], config)
            yield f"{name} {size}", found.prompt, {"curve": found.curve, "work": vars(found.work)}


def adapted(backbone, tasks):
    """Five runs of one task, two of which compete, through two places."""
    starts = prompts(backbone, runs=5)
    groups = (None, "rivals", None, "rivals", None)
    runs = [
        AdaptRun(starts[i], tasks[0], (13, 21)[i % 2], 0.1 * (i + 1), group=group)
        for i, group in enumerate(groups)
    ]
    config = AdaptConfig(steps=4, eval_every=2, rungs=(2,))
    for i, result in enumerate(adapt(backbone, runs, config, Evaluation(scoring="rank"), places=2)):
        facts = {
            "curve": result.curve,
            "status": result.status,
            "steps": result.steps,
            "tokens": result.tokens,
        }
        yield f"run {i}", result.prompt, facts


LONG = MetaConfig(steps=4, meta_batch=3, lr=0.1, checkpoint_every=2)


class Stop(Exception):
    """Ends a meta-training from within."""


def interrupted(backbone, tasks, checkpoint, steps):
    """MAML that ends after some steps, with a checkpoint."""
    done = 0

    def count(steps_done, note=""):
        nonlocal done
        done += steps_done
        if done == steps:
            raise Stop

    with contextlib.suppress(Stop):
        long(backbone, tasks, checkpoint, count)


def long(backbone, tasks, checkpoint=None, progress=silent):
    """MAML of four steps."""
    return meta_train(
        backbone, SMALL["maml"], tasks, prompts(backbone)[0], LONG, checkpoint=checkpoint, progress=progress
    )


def small_world():
    """The model and the tasks."""
    torch.set_num_threads(1)
    backbone = random_t5(torch.float32)
    return backbone, [toy_encoded(backbone, f"toy{i}", seed=i) for i in range(3)]


def everything():
    """(name, prompt [P, d], facts) of all that is done."""
    backbone, tasks = small_world()
    return [*learned(backbone, tasks), *adapted(backbone, tasks)]


def differing():
    """What the processes of a job begin with other facts: plain ones, rows of a task, a learning rate."""
    backbone, _ = small_world()
    job, start = this_job(), prompts(backbone)[0]
    job.agree("same")
    yield lambda: job.agree("rank", job.rank)
    # Of one name and as many rows.
    tasks = [toy_encoded(backbone, "toy", seed=job.rank)]
    config = MetaConfig(steps=1, meta_batch=2)
    yield lambda: meta_train(backbone, SMALL["maml"], tasks, start, config)
    own = AdaptRun(start, toy_encoded(backbone, "toy", seed=0), 13, 0.1 * (1 + job.rank))
    yield lambda: adapt(backbone, [own], AdaptConfig(steps=1))


if __name__ == "__main__":
    done, folder = everything(), Path(sys.argv[1])
    interrupted(*small_world(), folder / "together.safetensors", 2)
    if (folder / "alone.safetensors").exists():
        found = long(*small_world(), folder / "alone.safetensors")
        done.append(("resumed", found.prompt, {"curve": found.curve, "work": vars(found.work)}))
    save_tensors(
        folder / f"{this_job().rank}.safetensors",
        {name: prompt for name, prompt, _ in done},
        {name: facts for name, _, facts in done},
    )
