"""Compute what a plan still lacks: meta-trainings, packs of runs, fine-tuning, tests; safe to kill."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import softstart
from softstart.adaptation import AdaptRun, adapt
from softstart.backbone import Backbone
from softstart.console import Display, Quiet
from softstart.encoding import EncodedTask
from softstart.errors import SoftstartError
from softstart.evaluation import Job, assess
from softstart.finetuning import finetune, score_finetuned
from softstart.meta_training import meta_train
from softstart.prompt import SoftPrompt
from softstart.study.plan import Cell, Inputs, MetaNode, Plan, RunNode
from softstart.study.spec import Study
from softstart.study.starts import draw_start
from softstart.study.store import Store

FINE_TUNING_COST = 2.0
"""A fine-tuning row against a prompt-tuning row, roughly (weight gradients, no packing)."""
EVALUATION_COST = 0.7
"""A generated row against a row that goes forward and backward."""


@dataclass
class StudyRun:
    """A study on its way from declaration to results; every finished node is in the store."""

    study: Study
    inputs: Inputs
    backbone: Backbone
    tasks: dict[str, EncodedTask]
    plan: Plan
    store: Store
    display: Display = field(default_factory=Quiet)
    failures: list[str] = field(default_factory=list)

    def execute(self) -> None:
        """Compute everything that is missing. A node that fails is noted and the others go on."""
        metas, done = self.store.metas(), self.store.runs()
        todo_metas = [node for node in self.plan.metas if node.key not in metas]
        todo = [run for run in self.plan.runs if run.key not in done]
        self.display.start(self._cost(todo_metas, todo, done))
        for node in todo_metas:
            self._guard(f"meta-training {node.method.name}", self._meta_train, node)
        metas = self.store.metas()
        ready = [run for run in todo if run.start is None or run.start in metas]
        tuned = [run for run in ready if run.method.kind == "ft"]
        starts = self._starts([run for run in ready if run.method.kind != "ft"])
        packable = [run for run in ready if run.key in starts]
        size = self.study.pack_size
        for i in range(0, len(packable), size):
            pack = packable[i : i + size]
            self._guard(f"adaptation of {pack[0].task}", self._adapt, pack, starts)
        for run in tuned:
            self._guard(f"fine-tuning on {run.task}", self._finetune, run)
        done = self.store.runs()
        for name in self.inputs.target:
            self._guard(f"testing {name}", self._test, name, done)
        if not self.failures:
            self.store.drop_checkpoints()

    def _cost(self, metas: Sequence[MetaNode], runs: Sequence[RunNode], done: dict[str, Any]) -> float:
        # Only a cell's selected run is ever tested; fine-tuning tests as it goes.
        cells = [cell for cell in self.plan.cells if cell.method.kind != "ft"]
        best = [best_run(cell, done) for cell in cells]
        untested = [c for c, run in zip(cells, best, strict=True) if not run or done[run.key]["test"] is None]
        return (
            sum(node.cost for node in metas)
            + sum(self._run_cost(run) for run in runs)
            + sum(self._test_cost(cell.task) for cell in untested)
        )

    def _run_cost(self, run: RunNode) -> float:
        tuned = run.method.kind == "ft"
        config = self.study.finetuning if tuned else self.study.adaptation
        rows = config.steps * config.batch_size * (FINE_TUNING_COST if tuned else 1.0)
        dev = len(self.tasks[run.task].dev[run.sample]) * (config.steps / config.eval_every + 1)
        return rows + dev * EVALUATION_COST + (self._test_cost(run.task) if tuned else 0)

    def _test_cost(self, task: str) -> float:
        return len(self.tasks[task].test) * EVALUATION_COST

    def _guard(self, name: str, work: Callable[..., None], *args: Any) -> None:
        try:
            work(*args)
        except SoftstartError as problem:
            self.failures.append(f"{name}: {problem}")
            self.display.line(f"failed: {name}: {problem}")
        except torch.OutOfMemoryError as problem:
            raise SoftstartError(
                f"{name}: out of memory ({str(problem).splitlines()[0]})",
                mend="Lower adaptation.max_tokens, meta.max_tokens or pack_size; finished runs are kept.",
            ) from problem

    def _meta_train(self, node: MetaNode) -> None:
        method, study = node.method, self.study
        assert method.algorithm is not None
        assert method.meta is not None
        self.display.stage(f"meta-training {method.name}")
        began = time.monotonic()
        config = replace(method.meta, seed=node.seed)
        checkpoint = self.store.checkpoint_path(node.key)
        learned = meta_train(
            self.backbone,
            method.algorithm,
            [self.tasks[name] for name in node.source],
            draw_start(self.backbone, study.prompt, node.source, node.seed),
            config,
            samples=study.source_samples or study.samples,
            checkpoint=checkpoint,
            progress=lambda n, note="": self.display.advance(n * node.cost / config.steps, note),
        )
        info = {
            "method": method.name,
            "algorithm": method.kind,
            "setting": self.inputs.setting,
            "source": list(node.source),
            "seed": node.seed,
            "steps": config.steps,
        }
        self._save_prompt(node.key, learned.prompt, info)
        self.store.add_meta(
            {
                "key": node.key,
                "method": method.name,
                "seed": node.seed,
                "seconds": time.monotonic() - began,
                "prompt": f"prompts/{node.key}.safetensors",
                "curve": learned.curve,
                "environment": environment(self.backbone),
            }
        )
        checkpoint.unlink(missing_ok=True)

    def _adapt(self, pack: Sequence[RunNode], starts: Mapping[str, torch.Tensor]) -> None:
        names = sorted({run.task for run in pack})
        self.display.stage(f"adapting {len(pack)} runs: {names[0]}{' …' if len(names) > 1 else ''}")
        began = time.monotonic()
        checkpoint = self.store.checkpoint_path("pack-" + _digest([run.key for run in pack]))
        unit = sum(map(self._run_cost, pack)) / (len(pack) * self.study.adaptation.steps)
        runs = [AdaptRun(starts[run.key], self.tasks[run.task], run.sample, run.lr, run.seed) for run in pack]
        reported = 0.0

        def progress(done: float, note: str = "") -> None:
            nonlocal reported
            reported += done
            self.display.advance(done * unit, note)

        results = adapt(
            self.backbone,
            runs,
            self.study.adaptation,
            self.study.evaluation,
            checkpoint=checkpoint,
            progress=progress,
        )
        self.display.advance((len(pack) * self.study.adaptation.steps - reported) * unit)
        seconds = (time.monotonic() - began) / len(pack)
        rows = []
        for run, result in zip(pack, results, strict=True):
            info = {"method": run.method.name, "task": run.task, "sample": run.sample, "lr": run.lr}
            self._save_prompt(run.key, result.prompt, {**info, "start": run.start, "seed": run.seed})
            rows.append(
                {
                    **self._row(run, seconds),
                    "dev": result.dev,
                    "best_step": result.best_step,
                    "steps": result.steps,
                    "status": result.status,
                    "prompt": f"prompts/{run.key}.safetensors",
                    "curve": [list(point) for point in result.curve],
                }
            )
        self.store.add_runs(rows)
        checkpoint.unlink(missing_ok=True)

    def _finetune(self, run: RunNode) -> None:
        self.display.stage(f"fine-tuning: {run.task}")
        began = time.monotonic()
        task, how = self.tasks[run.task], self.study.evaluation
        unit = self._run_cost(run) / self.study.finetuning.steps
        result = finetune(
            self.backbone,
            task,
            run.sample,
            run.lr,
            self.study.finetuning,
            how,
            seed=run.seed,
            progress=lambda n, note="": self.display.advance(n * unit, note),
        )
        (test,) = score_finetuned(self.backbone, [result], task, how)
        row = {
            **self._row(run, time.monotonic() - began),
            "dev": result.dev,
            "best_step": result.best_step,
            "steps": result.steps,
            "status": result.status,
            "curve": [list(point) for point in result.curve],
            "test": test.score,
            "companions": test.companions,
        }
        self.store.add_runs([row])

    def _test(self, name: str, done: dict[str, Any]) -> None:
        cells = [cell for cell in self.plan.cells if cell.task == name and cell.method.kind != "ft"]
        chosen = [best_run(cell, done) for cell in cells]
        todo = [run for run in chosen if run and done[run.key]["test"] is None]
        if not todo:
            return
        self.display.stage(f"testing: {name}")
        task = self.tasks[name]
        prompts = torch.stack([self._load_prompt(run.key).tensor for run in todo])
        scores = assess(
            self.backbone,
            prompts.to(self.backbone.device, self.backbone.prompt_dtype),
            [Job(i, task, task.test) for i in range(len(todo))],
            self.study.evaluation,
        )
        self.store.set_tests({run.key: score for run, score in zip(todo, scores, strict=True)})
        self.display.advance(len(todo) * self._test_cost(name))

    def _starts(self, runs: Sequence[RunNode]) -> dict[str, torch.Tensor]:
        """The start [P, d] of every run that has one; a start that cannot be used costs its own runs only."""
        learned: dict[str, torch.Tensor] = {}
        for key, method in {run.start: run.method.name for run in runs if run.start}.items():
            self._guard(f"start of {method}", self._learned_start, key, learned)
        return {
            run.key: draw_start(self.backbone, self.study.prompt, [run.task], run.seed, run.sample)
            if run.start is None
            else learned[run.start]
            for run in runs
            if run.start is None or run.start in learned
        }

    def _learned_start(self, key: str, learned: dict[str, torch.Tensor]) -> None:
        learned[key] = self._load_prompt(key).tensor

    def _save_prompt(self, key: str, tensor: torch.Tensor, info: dict[str, Any]) -> None:
        backbone = self.backbone
        SoftPrompt(tensor, backbone.name, backbone.digest, backbone.placement, info).save(
            self.store.prompt_path(key)
        )

    def _load_prompt(self, key: str) -> SoftPrompt:
        path, backbone = self.store.prompt_path(key), self.backbone
        prompt = SoftPrompt.load(path)
        prompt.check(
            width=backbone.width,
            digest=backbone.digest,
            placement=backbone.placement,
            backbone=backbone.name,
            where=str(path),
        )
        return prompt

    def _row(self, run: RunNode, seconds: float) -> dict[str, Any]:
        return {
            "key": run.key,
            "method": run.method.name,
            "task": run.task,
            "sample": run.sample,
            "lr": run.lr,
            "seed": run.seed,
            "start": run.start,
            "seconds": seconds,
            "environment": environment(self.backbone),
        }


def best_run(cell: Cell, done: dict[str, dict[str, Any]]) -> RunNode | None:
    """The run of a cell with the best dev score; ties go to the first learning rate of the grid.

    None while a run of the cell is missing, or if all of them diverged before a dev score.
    """
    if any(run.key not in done for run in cell.runs):
        return None

    def dev(run: RunNode) -> float:
        value = done[run.key]["dev"]
        return -math.inf if value is None else float(value)

    best = max(cell.runs, key=dev)
    return None if dev(best) == -math.inf else best


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
    }


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(keys)).encode()).hexdigest()[:16]
