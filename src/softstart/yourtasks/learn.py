"""Learn a start from your own source tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from softstart.algorithms import MultiTask
from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.gym.task import Task
from softstart.progress import Progress, silent
from softstart.prompt import SoftPrompt
from softstart.storage.safe_yaml import read_yaml
from softstart.training.configs import MetaConfig
from softstart.training.distributed import this_job
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.methods import LEARNERS, Learner, find_method, learn, resolve_method
from softstart.training.ranges import check_ranges
from softstart.training.rates import LrUnit
from softstart.yourtasks.curves import keep_losses
from softstart.yourtasks.lengths import input_limit
from softstart.yourtasks.repeating import WORK, checkpoint_of, fingerprint
from softstart.yourtasks.starts import plain_start

MIXED = MultiTask(query_size=32)
"""The algorithm by default: it has no inner learning rate, whose right size differs between backbones."""
QUICK_META = MetaConfig(steps=100, meta_batch=4, lr=0.3, max_tokens=2048)
"""The outer loop by default."""


def learn_start(
    backbone: Backbone,
    tasks: Sequence[Task],
    algorithm: Learner = MIXED,
    config: MetaConfig = QUICK_META,
    *,
    length: int = 20,
    text: TextFormat = TextFormat("{input}"),
    init: Tensor | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> SoftPrompt:
    """Learn a start from source tasks.

    Args:
        backbone: the frozen model.
        tasks: what to learn from; see ``softstart.gym.source_folder.source_tasks``.
        algorithm: how to learn; by default multi-task learning.
        config: the outer loop.
        length: P.
        text: how an example becomes model input; inputs too long for the model's window are cut.
        init: where learning begins [P, d]; by default frequent words.
        folder: keeps a checkpoint while learning, so that the same call resumes where it was killed, and
            then the start with the curve of the loss (``curves.csv``, ``curves.svg``).
        progress: receives every outer step.

    Raises:
        SoftstartError: as ``meta_train``.

    >>> from softstart import Backbone
    >>> from softstart.gym import load_task
    >>> backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    >>> algorithm, config = outer_loop("multitask", steps=2)
    >>> tasks = [load_task("animal_class"), load_task("film_review")]
    >>> start = learn_start(backbone, tasks, algorithm, config, length=5)
    >>> tuple(start.tensor.shape), start.info["source"]
    ((5, 128), ['animal_class', 'film_review'])
    """
    start = plain_start(backbone, length, config.seed) if init is None else init
    limit = input_limit(backbone, len(start), text.max_input_tokens, text.max_output_tokens)
    text = replace(text, max_input_tokens=limit)
    work = learning_work(backbone, tasks, algorithm, config, start, text)
    checkpoint = checkpoint_of(folder, work) if folder else None
    encoded = [encode_task(task, backbone, text) for task in tasks]
    learned = learn(backbone, algorithm, encoded, start, config, checkpoint=checkpoint, progress=progress)
    info = {
        "source": [task.name for task in tasks], "algorithm": type(algorithm).__name__.lower(),
        **asdict(cast(Any, algorithm)), "steps": config.steps, "lr": config.lr,
        **({"lr_unit": config.lr_unit} if config.lr_unit != "absolute" else {}),
        "meta_batch": config.meta_batch, "seed": config.seed, "template": text.template,
        WORK: work,
    }  # fmt: skip
    learned_start = SoftPrompt.of(backbone, learned.prompt, info, learned.further)
    if folder and checkpoint and this_job().lead:
        learned_start.save_with_card(folder)
        keep_losses(folder, learned.curve)
        checkpoint.unlink(missing_ok=True)
    return learned_start


def learning_work(
    backbone: Backbone,
    tasks: Sequence[Task],
    algorithm: Learner,
    config: MetaConfig,
    start: Tensor,
    text: TextFormat,
) -> str:
    """The fingerprint of learning a start from ``start`` [P, d], inputs cut to the model's window."""
    limit = input_limit(backbone, len(start), text.max_input_tokens, text.max_output_tokens)
    text = replace(text, max_input_tokens=limit)
    model = (backbone.digest, backbone.placement)
    return fingerprint(algorithm, config, start, text, *model, [task.digest for task in tasks])


def outer_loop(
    name: str,
    *,
    steps: int = 100,
    lr: float = 0.3,
    lr_unit: LrUnit = "absolute",
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> tuple[Learner, MetaConfig]:
    """An algorithm by name and an outer loop, with ``field=value`` overrides of either.

    Args:
        name: of the algorithm, one of ``softstart.training.methods.LEARNERS``.
        steps: outer steps.
        lr: outer learning rate.
        lr_unit: ``embedding``: the rate is in units of the backbone's embedding.
        seed: draws the episodes.
        overrides: ``field=value`` each, of the algorithm or of the outer loop.

    Raises:
        SoftstartError: no such algorithm or field, or a value out of range.

    >>> algorithm, config = outer_loop("fomaml", steps=60, overrides=["inner_lr=3.0", "meta_batch=2"])
    >>> algorithm.inner_lr, config.steps, config.meta_batch
    (3.0, 60, 2)
    """
    values: dict[str, Any] = {"query_size": MIXED.query_size} if name == "multitask" else {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SoftstartError(
                f"'{override}' is not of the form field=value", where="--set", fix="Write --set meta_batch=2."
            )
        values[key] = read_yaml(value, f"--set {override}")
    outer = replace(QUICK_META, steps=steps, lr=lr, lr_unit=lr_unit, seed=seed)
    find_method(name, "--algorithm")
    method = resolve_method(name, values, outer, "--set")
    if method.algorithm is None or method.meta is None:
        raise SoftstartError(
            f"'{name}' learns no start", where="--algorithm", fix=f"Use one of {', '.join(LEARNERS)}."
        )
    check_ranges(vars(method.meta))
    return method.algorithm, method.meta
