"""The pieces of a study's work, each done by one process, and the worker that does them."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

import softstart
from softstart.algorithms import LOG_RATES
from softstart.backbone import Backbone
from softstart.backbone.devices import peak_memory
from softstart.errors import SoftstartError
from softstart.progress import Progress, silent
from softstart.prompt import FURTHER
from softstart.study.declare.spec import Study
from softstart.study.plan.plan import MetaNode, RunNode
from softstart.study.run.clock import clock
from softstart.study.run.resources import Resources
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.baselines.base import Given
from softstart.training.episodes import Context
from softstart.training.evaluation import Assessment, Job, assess
from softstart.training.methods import TaskLearner, learn
from softstart.training.objective import Work
from softstart.training.spot import Near
from softstart.training.starts import Demonstrator, draw_start, run_start

Array = npt.NDArray[Any]
WORK = tuple(of.name for of in fields(Work))
"""What is counted of training."""
FINAL = "final"
"""The name of a run's final prompt; the other prompts it kept are named by their step."""


@dataclass
class Done:
    """The outcome of a piece of work: rows for the store, prompts [P, d] by run and name, and the reasons of
    parts that failed, by name.
    """

    metas: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    tests: dict[tuple[str, int], Assessment] = field(default_factory=dict)
    prompts: dict[str, dict[str, Array]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class WorkItem(Protocol):
    """A piece of work: plain data that can be sent to another process."""

    @property
    def name(self) -> str:
        """Its name in progress and errors."""

    def perform(self, worker: Worker, progress: Progress) -> Done:
        """Do it; ``progress`` receives shares of the whole, 0 to 1."""


@dataclass
class Worker:
    """What pieces of work need: the backbones, the tasks, and the folder of checkpoints."""

    resources: Resources
    checkpoints: Path

    def checkpoint(self, key: str) -> Path:
        """The checkpoint of a piece of work."""
        return self.checkpoints / f"{key}.safetensors"

    def measured(self, variant: str, row: Mapping[str, Any], began: float, parts: int = 1) -> dict[str, Any]:
        """A row with its costs, tests excluded: seconds (an equal share of work done together), memory,
        environment.
        """
        backbone = self.resources.backbone(variant)
        return {
            **row,
            "seconds": (time.monotonic() - began) / parts,
            "memory": peak_memory(backbone.device),
            "environment": environment(backbone),
        }


@dataclass(frozen=True)
class MetaTraining:
    """Learn one start."""

    node: MetaNode

    @property
    def name(self) -> str:
        """Its name in progress and errors."""
        return f"meta-training {self.node.method.name}"

    def perform(self, worker: Worker, progress: Progress = silent) -> Done:
        """Learn it, from its checkpoint if there is one."""
        node = self.node
        began, progress = clock(worker.checkpoint(node.key), progress)
        method, study = node.method, worker.resources.studies[node.variant]
        assert method.algorithm is not None
        assert method.meta is not None
        backbone = worker.resources.backbone(node.variant)
        config = replace(method.meta, seed=node.seed)
        tasks = [worker.resources.encoded(node.variant, name, source=True) for name in node.source]
        learned = learn(
            backbone,
            method.algorithm,
            tasks,
            draw_start(backbone, study.prompt, tasks, node.seed),
            config,
            samples=study.source_samples or study.samples,
            context=self._context(backbone, study),
            checkpoint=worker.checkpoint(node.key),
            progress=lambda n, note="": progress(n / config.steps, note),
        )
        row = {
            "key": node.key,
            "method": method.name,
            "seed": node.seed,
            "curve": learned.curve,
            **vars(learned.work),
        }
        return Done(
            metas=[worker.measured(node.variant, row, began)],
            prompts={node.key: {FINAL: learned.prompt.numpy(), **_further(learned.further)}},
        )

    def _context(self, backbone: Backbone, study: Study) -> Context | None:
        rows = self.node.method.context(study.prompt)
        return (
            Context(Demonstrator(backbone, study.prompt), rows, study.prompt.leave_one_out) if rows else None
        )


@dataclass(frozen=True)
class Adaptation:
    """Prompt-tune a pack of runs. ``starts`` are the learned ones, by key of the meta-training: the prompt
    [P, d] as ``FINAL``, and whatever else was learned with it. At most ``places`` runs train at once; None:
    all of them.
    """

    key: str
    runs: Sequence[RunNode]
    starts: Mapping[str, Mapping[str, Array]]
    places: int | None = None

    @property
    def name(self) -> str:
        """Its name in progress and errors."""
        tasks = sorted({run.task for run in self.runs})
        return f"adaptation of {tasks[0]}{' …' if len(tasks) > 1 else ''} ({len(self.runs)} runs)"

    def perform(self, worker: Worker, progress: Progress = silent) -> Done:
        """Tune them, from their checkpoint if there is one; those that have no start fail alone.

        Raises:
            SoftstartError: none of them has a start.
        """
        variant, resources = self.runs[0].variant, worker.resources
        began, progress = clock(worker.checkpoint(self.key), progress)
        study, backbone = resources.studies[variant], resources.backbone(variant)
        near = self._nearest(worker)
        begun, problems = self._begun(worker, near)
        if not begun:
            raise next(iter(problems.values()))
        done = Done(failed={name: str(problem) for name, problem in problems.items()})
        runs = [run for run in self.runs if run.key in begun]
        share = 1 / (len(runs) * study.adaptation.steps)
        results = adapt(
            backbone,
            list(begun.values()),
            study.adaptation,
            study.evaluation,
            places=self.places,
            checkpoint=worker.checkpoint(self.key),
            progress=lambda n, note="": progress(n * share, note),
        )
        for run, result in zip(runs, results, strict=True):
            final = result.prompt
            size = {"trained": final.numel(), "stored": final.nbytes}
            done.runs.append(worker.measured(variant, _row(run, result) | size, began, len(runs)))
            further = {str(s): p.numpy() for s, p in result.kept.items() if p is not final}
            if run.group in near:
                further |= _further({"similarity": near[run.group].similarity})
            done.prompts[run.key] = {FINAL: final.numpy(), **further}
        for chosen in near.values():  # the costs of choosing a start, in equal shares
            for row in done.runs:
                for name, amount in vars(chosen.work).items():
                    row[name] += type(amount)(amount / len(done.runs))
        return done

    def _nearest(self, worker: Worker) -> dict[str, Near]:
        """For SPoT and its like, the start of every group of runs."""
        first, resources = self.runs[0], worker.resources
        method = first.method
        if first.start is None or not isinstance(method.algorithm, TaskLearner) or method.meta is None:
            return {}
        library = {name: torch.tensor(array) for name, array in self.starts[first.start].items()}
        groups = {run.group: run for run in self.runs}
        backbone, at_once = resources.backbone(first.variant), self.places or len(groups)
        cells = [(resources.encoded(run.variant, run.task), run.sample, run.seed) for run in groups.values()]
        chosen: list[Near] = []
        for begin in range(0, len(cells), at_once):
            some = cells[begin : begin + at_once]
            chosen += method.algorithm.nearest(backbone, library, some, method.meta)
        return dict(zip(groups, chosen, strict=True))

    def _begun(
        self, worker: Worker, near: Mapping[str, Near]
    ) -> tuple[dict[str, AdaptRun], dict[str, SoftstartError]]:
        """The runs with their starts, by key; and why others have none, by name: their task lacks what the
        start is made of.
        """
        begun, problems = {}, {}
        for run in self.runs:
            try:
                chosen = near[run.group].start if run.group in near else None
                begun[run.key] = self._run(run, worker, chosen)
            except SoftstartError as problem:
                problems[f"adaptation of {run.task} by {run.method.name}"] = problem
        return begun, problems

    def _run(self, run: RunNode, worker: Worker, chosen: Tensor | None) -> AdaptRun:
        """A run with its start: the one that was ``chosen``, or a learned one, or an unlearned one."""
        spec = run.method.begins(worker.resources.studies[run.variant].prompt)
        backbone = worker.resources.backbone(run.variant)
        task = worker.resources.encoded(run.variant, run.task)
        learned = self.starts[run.start] if run.start is not None else {}
        if chosen is None and FINAL in learned:
            chosen = torch.tensor(learned[FINAL])
        start = run_start(backbone, spec, task, run.seed, run.sample, draw=run.draw, learned=chosen)
        rates = torch.tensor(learned[LOG_RATES]).exp() if LOG_RATES in learned else None
        if rates is not None:  # rows that follow have the mean rate
            more = len(start.prompt) - len(rates)
            rates = torch.cat((rates, rates.mean(0, keepdim=True).expand(more, -1)))
        return AdaptRun(
            start.prompt, task, run.sample, run.lr, run.seed, run.group, rates,
            origins=start.origins if spec.leave_one_out else None, token_dropout=spec.token_dropout,
        )  # fmt: skip


@dataclass(frozen=True)
class UnpackedRun:
    """Do and test one run of a baseline that trains no prompt; what it learned is not kept."""

    run: RunNode

    @property
    def work(self) -> str:
        """What is done, in a word or two."""
        assert self.run.method.unpacked is not None
        return self.run.method.unpacked.work

    @property
    def name(self) -> str:
        """Its name in progress and errors."""
        return f"{self.work} on {self.run.task}"

    def perform(self, worker: Worker, progress: Progress = silent) -> Done:
        """Do it, with a test at every budget."""
        run, began, resources = self.run, time.monotonic(), worker.resources
        method, study = run.method.unpacked, resources.studies[run.variant]
        assert method is not None
        tests: dict[tuple[str, int], Assessment] = {}

        def test(step: int, score: Callable[[], Assessment]) -> None:
            nonlocal began
            if (run.key, step) not in tests:
                since = time.monotonic()
                tests[run.key, step] = score()
                began += time.monotonic() - since  # tests are no part of a run's seconds, as in an adaptation

        given = Given(
            resources.backbone(run.variant, method.other_weights),
            resources.encoded(run.variant, run.task),
            run.sample,
            run.lr,
            run.seed,
            study.evaluation,
            progress,
        )
        row = _row(run, learned := method.run(given, test))
        row |= {"trained": learned.trained, "stored": learned.stored}
        return Done(runs=[worker.measured(run.variant, row, began)], tests=tests)


@dataclass(frozen=True)
class Testing:
    """Test prompts [N, P, d] of finished runs on one task; ``of`` holds the run and step of each."""

    variant: str
    task: str
    of: Sequence[tuple[str, int]]
    prompts: Array

    @property
    def name(self) -> str:
        """Its name in progress and errors."""
        return f"testing {self.task}"

    def perform(self, worker: Worker, progress: Progress = silent) -> Done:
        """Predict and score them together."""
        backbone = worker.resources.backbone(self.variant)
        task = worker.resources.encoded(self.variant, self.task)
        scores = assess(
            backbone,
            torch.tensor(self.prompts).to(backbone.device, backbone.prompt_dtype),
            [Job(i, task, task.test) for i in range(len(self.of))],
            worker.resources.studies[self.variant].evaluation,
        )
        return Done(tests=dict(zip(self.of, scores, strict=True)))


def _further(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """What else is stored in the file of a prompt, under the names that ``SoftPrompt.further`` reads."""
    return {f"{FURTHER}{name}": tensor.numpy() for name, tensor in tensors.items()}


def _row(run: RunNode, result: Any) -> dict[str, Any]:
    """The store's row of a run; ``result`` is an ``Adapted`` or a ``Learned``."""
    names = ("method", "task", "sample", "lr", "seed", "start")
    return {
        "key": run.key,
        **{name: getattr(run, name) for name in names},
        "method": run.method.name,
        **{name: getattr(result, name) for name in ("dev", "best_step", "steps", "status", *WORK)},
        "curve": [list(point) for point in result.curve],
    }


def environment(backbone: Backbone) -> dict[str, str]:
    """Versions and hardware a number was made with."""
    import transformers

    device = backbone.device
    return {
        "softstart": softstart.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": str(torch.get_num_threads()),
        **({"weights": backbone.weights} if backbone.weights else {}),
        **({"git": git} if (git := git_revision()) else {}),
    }


@cache
def git_revision() -> str:
    """The commit of the checkout that this code runs from, "+" if files differ from it; "" outside of one."""
    root = Path(softstart.__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
