"""What the study layer costs: ``python -m benchmarks.study``.

A plan of 100,000 runs, and the share of plan, store and scheduling in the demo.
"""

from __future__ import annotations

import resource
import tempfile
import time
from importlib import resources
from pathlib import Path

import torch

from softstart.study import parse_study
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.plan import make_plan
from softstart.study.results.stores import open_store
from softstart.study.run.executors import InProcess, Setup
from softstart.study.run.pack_sizes import fitting_packs
from softstart.study.run.resources import Resources
from softstart.study.run.schedule import StudyRun
from softstart.study.run.work_graph import StoredRows, WorkGraph

SETTINGS, SOURCES, TARGETS = 10, 20, 17


class Timed(InProcess):
    """Adds up the seconds of the work itself."""

    seconds = 0.0

    def collect(self, report):
        began = time.perf_counter()
        result = super().collect(report)
        self.seconds += time.perf_counter() - began
        return result


def big_plan() -> None:
    settings = [
        {
            "name": f"s{i}",
            "source": [f"a{i}_{j}" for j in range(SOURCES)],
            "target": [f"t{i}_{j}" for j in range(TARGETS)],
        }
        for i in range(SETTINGS)
    ]
    study = parse_study(
        f"{{name: big, settings: {settings}, meta_seeds: [1, 2, 3, 4, 5], "
        "methods: {pt: {}, ft: {}, maml: {}, fomaml: {}, reptile: {}, multitask: {}}}",
        "big",
    )
    parts = []
    for s in study.settings:
        facts = {name: TaskFacts(name, "ACC", 16, 32, 200) for name in (*s.source, *s.target)}
        parts.append(Part("main", s.name, tuple(s.source), tuple(s.target), facts, tuple(s.source)))
    before, began = memory(), time.perf_counter()
    inputs = Inputs("", 8, tuple(parts))
    plan = make_plan(study, inputs)
    graph = WorkGraph(plan, inputs, StoredRows({}, {}, {}, {}), Path("nowhere"))
    seconds = time.perf_counter() - began
    runs = sum(1 for _ in plan.runs)
    print(f"plan of {runs:,} runs, {len(graph.units):,} units: {seconds:.1f} s, {memory() - before} MB more,")
    print(f"  {memory()} MB in all with torch and transformers loaded")


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def overhead() -> None:
    text = resources.files("softstart.study").joinpath("demo.yaml").read_text(encoding="utf-8")
    study = parse_study(text, "demo.yaml", ["meta.steps=10"])
    studies = variants_of(study)
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder)) as store:
        loaded = Resources(studies)
        inputs = loaded.inputs()
        plan = make_plan(study, inputs)
        began = time.perf_counter()
        fits = fitting_packs(loaded, plan, 1)
        probe = time.perf_counter() - began
        began = time.perf_counter()
        store.set_inputs(inputs.to_json())
        run = StudyRun(inputs, make_plan(study, inputs), store)
        executor = Timed(Setup(studies, None, Path(folder) / "checkpoints").worker(loaded))
        run.execute(executor)
        total = time.perf_counter() - began
        assert not run.failures
        runs = len(store.runs())
    extra = total - executor.seconds
    print(
        f"demo, {runs} runs: {total:.1f} s, of which plan, store and scheduling {extra:.2f} s "
        f"({1000 * extra / runs:.1f} ms a run, {100 * extra / total:.2f} %)"
    )
    print(f"once, when a study begins: what fits in memory, {probe:.2f} s (smaller packs: {fits or 'none'})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    big_plan()
    overhead()
