"""``python -m tests.faults.inputs --faults 300 --out DIR``: faults of what is given.

Damaged and mismatched models, prompts, tables and studies, folders of others, odd names, options and outputs,
folders that go away, power cuts. Each trial is drawn from a seed. Its outcome is what an undisturbed command
comes to, or one line that names the trouble; nothing that is somebody else's may change.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.running import Ended, Shim, start
from faults.targets import Target, make_targets, outcome
from softstart.errors import SoftstartError

Contents = dict[str, bytes]


@dataclass
class World:
    """What all trials share: a model, tasks, a table, and what commands come to undisturbed."""

    root: Path
    targets: dict[str, Target] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.targets = make_targets(self.root / "world")
        self.model = ("--backbone", str(self.root / "world" / "model"), "--device", "cpu")

    @property
    def table(self) -> Path:
        """Labeled rows."""
        return self.root / "world" / "mine.csv"

    @property
    def start(self) -> Path:
        """A prompt tuned on them."""
        return self.reference("adapt")

    def reference(self, name: str) -> Path:
        """The folder of an undisturbed run of a target."""
        folder = self.root / f"reference-{name}"
        if not folder.exists():
            ended = start(self.targets[name].to(folder), self.root / f"reference-{name}.txt").wait()
            if ended.code:
                raise RuntimeError(f"{name} fails undisturbed: {ended.said}")
        return folder

    def expected(self, name: str) -> dict[str, Any]:
        """What an undisturbed run of a target comes to."""
        if name not in self.known:
            self.known[name] = outcome(self.reference(name))
        return dict(self.known[name])


@dataclass
class Trial:
    """One fault: where it happens, what was said, and what was wrong about it."""

    number: int
    kind: str
    world: World
    here: Path
    rng: random.Random
    note: str = ""
    wrong: list[str] = field(default_factory=list)
    """Numbers that mean something else than they say, without a word."""
    lost: list[str] = field(default_factory=list)
    """What was somebody's and is gone or changed."""
    bugs: list[str] = field(default_factory=list)
    """Tracebacks, exit codes that are none, more or less than one line."""
    skipped: str = ""
    said: list[Ended] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything was wrong."""
        return bool(self.wrong or self.lost or self.bugs)

    def call(self, *arguments: object, shim: Shim | None = None) -> Ended:
        """Run a command in the folder of the trial; how it ends must be clear."""
        here, log = str(self.here), self.here.with_name(f"said-{self.number}-{len(self.said)}.txt")

        def prepare() -> None:
            os.chdir(here)
            if shim:
                shim()

        ended = start(list(map(str, arguments)), log, shim=prepare).wait(180)
        self.said.append(ended)
        errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        if ended.traceback or ended.hung or ended.code not in (0, 1, 2, 130):
            self.bugs.append(f"exit code {ended.code}: {ended.last[:200]}")
        elif ended.code == 1 and len(errors) != 1:
            self.bugs.append(f"{len(errors)} lines of errors: {ended.said[-300:]}")
        return ended

    def refused(self, ended: Ended, *words: str) -> None:
        """Expect one line that says these words."""
        if ended.code == 0:
            self.wrong.append(f"accepted: {ended.last[:200]}")
        elif missing := [word for word in words if word not in ended.said]:
            self.bugs.append(f"not said: {missing} in {ended.last[:200]}")

    def succeeded(self, ended: Ended) -> bool:
        """Expect success."""
        if ended.code:
            self.bugs.append(f"refused: {ended.last[:200]}")
        return not ended.code

    def same(self, name: str, folder: Path, *, but: Sequence[str] = (), close: bool = False) -> None:
        """Expect the numbers of an undisturbed run."""
        from faults.campaign import differing

        try:
            expected, found = self.world.expected(name), outcome(folder)
        except SoftstartError as problem:
            self.lost.append(f"no result: {problem}"[:200])
            return
        different = [n for n in differing(expected, found, lenient=close) if n not in but]
        if different:
            self.wrong.append(f"differs: {', '.join(different)[:200]}")

    def kept(self, folder: Path, before: Contents) -> None:
        """Expect that files are as they were."""
        now = contents_of(folder)
        self.lost += [name for name, data in before.items() if now.get(name) != data]


def contents_of(folder: Path) -> Contents:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run_campaign(
    world: World, faults: int, seed: int, only: str | None, out: Path, part: tuple[int, int] = (0, 1)
) -> list[Trial]:
    """All trials, or those of one part of several, with a report after each."""
    from faults.input_kinds import KINDS

    chosen = [kind for kind in KINDS if only in (None, kind.__name__)]
    order = [chosen[i % len(chosen)] for i in range(faults)]
    random.Random(seed).shuffle(order)
    began = time.monotonic()
    trials: list[Trial] = []
    for number, kind in enumerate(order):
        if number % part[1] != part[0]:
            continue
        trials.append(one_trial(world, number, kind, seed))
        trial = trials[-1]
        what = "BAD" if trial.failed else "ok "
        print(f"{time.monotonic() - began:6.0f} s  {what}  {number} {trial.kind}: {trial.note}", flush=True)
        for problem in (*trial.wrong, *trial.lost, *trial.bugs):
            print(f"          {problem}", flush=True)
        write_report(out, seed, trials, time.monotonic() - began)
    return trials


def one_trial(world: World, number: int, kind: Callable[[Trial], None], seed: int) -> Trial:
    """Make one fault in a folder of its own."""
    here = world.root / f"trial-{number}"
    here.mkdir()
    trial = Trial(number, kind.__name__, world, here, random.Random(f"{seed} {number}"))
    kind(trial)
    if not trial.failed:
        shutil.rmtree(here, ignore_errors=True)
        for log in world.root.glob(f"said-{number}-*"):
            log.unlink()
    return trial


def write_report(folder: Path, seed: int, trials: Sequence[Trial], seconds: float) -> None:
    """``report.md`` and ``report.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = ("number", "kind", "note", "wrong", "lost", "bugs", "skipped")
    rows = [{name: getattr(trial, name) for name in fields if getattr(trial, name)} for trial in trials]
    (folder / "report.json").write_text(json.dumps({"seed": seed, "trials": rows}, indent=1) + "\n")
    done = [trial for trial in trials if not trial.skipped]
    lines = [
        "# Faults of what is given",
        "",
        f"{len(done)} faults, seed {seed}, {seconds / 60:.0f} minutes. Each trial expects what an "
        "undisturbed command comes to, or a refusal in one line that names the trouble.",
        "",
        f"* wrong numbers without a word: **{sum(bool(t.wrong) for t in done)}**",
        f"* trials in which something was lost: **{sum(bool(t.lost) for t in done)}**",
        "* tracebacks, unclear errors and exit codes other than 0, 1, 2 and 130: "
        f"**{sum(bool(t.bugs) for t in done)}**",
        f"* faults this machine could not make: {len(trials) - len(done)}",
        "",
        "| fault | trials | calls | failed |",
        "|---|---:|---:|---:|",
    ]
    for kind, count in sorted(Counter(trial.kind for trial in done).items()):
        own = [trial for trial in done if trial.kind == kind]
        calls, failed = sum(len(t.said) for t in own), sum(t.failed for t in own)
        lines.append(f"| {kind.replace('_', ' ')} | {count} | {calls} | {failed} |")
    failed = [trial for trial in done if trial.failed]
    lines += ["", *(f"* trial {t.number}, {t.kind}: {t.note}" for t in failed)]
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n")


def main() -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["SOFTSTART_CACHE"] = "off"
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="0/2 and 1/2: two processes share the trials")
    parser.add_argument("--only", help="one kind of fault")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.md and report.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="faults-of-inputs-"))
    part, parts = map(int, asked.part.split("/"))
    trials = run_campaign(World(root), asked.faults, asked.seed, asked.only, asked.out, (part, parts))
    failed = [trial for trial in trials if trial.failed]
    if failed:
        print(f"what failed is kept in {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
