"""The campaign: seeded trials, judged by what an undisturbed run came to."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faults.kinds import KINDS, Impossible, Trial, again, disk_full, flip, interrupt, kill, swap
from faults.targets import Target, finished_work, make_targets, outcome
from softstart import SoftPrompt
from softstart.errors import SoftstartError

SHORT = (
    (kill, "study"),
    (flip, "study"),
    (swap, "study"),
    (interrupt, "meta-train"),
    (disk_full, "meta-train"),
)
TOLERANCE = 1e-4
"""How far prompts may be apart where packs had to be cut anew."""


@dataclass
class Verdict:
    """What became of one trial; the last four must be 0."""

    number: int
    kind: str
    target: str
    notes: str
    calls: int
    by_hand: bool
    skipped: str = ""
    wrong: int = 0
    """Values that differ from an undisturbed run's, and were not refused when read."""
    lost: int = 0
    """Rows of a study's finished work, not damaged themselves, that were computed again."""
    tracebacks: int = 0
    unfinished: int = 0
    """1: the command did not come to an end, or never succeeded again."""


@dataclass
class Campaign:
    """Trials in a folder, all drawn from one seed."""

    root: Path
    seed: int = 0
    real: float = 0.5
    """The share of trials of the real program, with its start; the others are forked, which is faster."""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        os.environ["SOFTSTART_CACHE"] = str(self.root / "cache")
        # Texts as short as ours would not be cached.
        from softstart.storage import token_cache

        token_cache.WORTH_KEEPING = 0
        self.targets = make_targets(self.root / "world")
        self.references: dict[str, Path] = {}

    def reference(self, name: str) -> tuple[Target, dict[str, Any]]:
        """A target with the time it takes, and what it comes to undisturbed."""
        of = {"workers": "study", "report": "study"}.get(name, name)
        if name not in self.references:
            target, out = self.targets[name], self.root / f"reference-{name}" / "out"
            out.parent.mkdir()
            if name == "report":
                self.reference("study")
                shutil.copytree(self.references["study"], out)
            trial, began = Trial(target, out, out.parent, random.Random(0)), time.monotonic()
            ended = trial.run()
            if ended.code:
                raise RuntimeError(f"{name} fails undisturbed: {ended.said}")
            self.targets[name] = replace(target, seconds=time.monotonic() - began)
            self.references[name] = out
        if of not in self.references:
            self.reference(of)
        return self.targets[name], outcome(self.references[of])

    def trial(self, number: int, kind: Callable[[Trial], None], name: str) -> Verdict:
        """Do one fault, call the command again, and judge."""
        target, expected = self.reference(name)
        rng = random.Random(f"{self.seed} {number}")
        out = self.root / f"trial-{number}" / "out"
        logs = self.root / f"trial-{number}-said"
        for folder in (out.parent, logs):
            folder.mkdir()
        if name == "report":
            shutil.copytree(self.references["study"], out)
        trial = Trial(target, out, logs, rng, real=rng.random() < self.real)
        verdict = Verdict(number, kind.__name__, target.what, "", 0, by_hand=False)
        try:
            kind(trial)
            before = finished_work(trial.out) if trial.whole is None else trial.whole
            again(trial)
            if name == "report":
                # A report does not fix what a study needs.
                trial.target = self.targets["study"]
                again(trial)
            self._judge(verdict, trial, expected, before)
        except Impossible as problem:
            verdict.skipped = str(problem)
        verdict.notes, verdict.calls = "; ".join(trial.notes), len(trial.said)
        verdict.by_hand = "by hand" in verdict.notes
        if not (verdict.wrong or verdict.lost or verdict.tracebacks or verdict.unfinished):
            for folder in self.root.glob(f"trial-{number}*"):
                shutil.rmtree(folder, ignore_errors=True)
        return verdict

    def _judge(
        self, verdict: Verdict, trial: Trial, expected: dict[str, Any], before: dict[str, Any]
    ) -> None:
        verdict.tracebacks = sum(ended.traceback for ended in trial.said)
        verdict.unfinished = int(trial.said[-1].code != 0 or any(ended.hung for ended in trial.said))
        if verdict.unfinished:
            return
        for _ in range(20):
            try:
                refuse_strangers(trial.out)
                found = outcome(trial.out)
                break
            except SoftstartError as problem:
                # Damaged after it was last used: nobody can read it, so it is no wrong number.
                damaged = Path(str(problem.where))
                trial.notes.append(f"by hand: {damaged.parent.name}/{damaged.suffix}, refused when read")
                damaged.unlink()
                again(trial)
        verdict.wrong = len(differing(expected, found, lenient=trial.lenient))
        after = finished_work(trial.out)
        verdict.lost = sum(after.get(key) != row for key, row in before.items())


def refuse_strangers(folder: Path) -> None:
    """As a study does before it uses a prompt: one that says it is another's is not taken for this one's."""
    for file in (folder / "prompts").glob("*.safetensors"):
        if SoftPrompt.load(file).info["key"] != file.stem:
            raise SoftstartError("a prompt of other work", where=str(file))


def differing(expected: dict[str, Any], found: dict[str, Any], *, lenient: bool = False) -> list[str]:
    """The names of what differs; ``lenient`` allows it in the last bits."""
    # What a study depends on holds the sizes of its packs, which are no results.
    names = sorted((set(expected) | set(found)) - ({"inputs"} if lenient else set()))
    return [n for n in names if not _same(expected.get(n), found.get(n), lenient=lenient)]


def _same(a: Any, b: Any, *, lenient: bool) -> bool:
    if a == b or not lenient:
        return bool(a == b)
    if isinstance(a, bytes) and isinstance(b, bytes) and len(a) == len(b):
        return bool(np.allclose(*(np.frombuffer(x, np.float32) for x in (a, b)), atol=TOLERANCE))
    if isinstance(a, str) and isinstance(b, str):
        try:
            return _same(json.loads(a), json.loads(b), lenient=True)
        except ValueError:
            return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k], lenient=True) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y, lenient=True) for x, y in zip(a, b, strict=True))
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return bool(np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
    return False


def schedule(faults: int, seed: int) -> list[tuple[Callable[[Trial], None], str]]:
    """The trials of a campaign: every kind on every target in turn, in a shuffled order."""
    pairs = [(kind, target) for kind, targets in KINDS.items() for target in targets]
    drawn = [pairs[i % len(pairs)] for i in range(faults)]
    random.Random(seed).shuffle(drawn)
    return drawn


def write_report(folder: Path, seed: int, verdicts: Sequence[Verdict], seconds: float) -> None:
    """``report.md`` and ``report.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    done = [v for v in verdicts if not v.skipped]
    rows = [{k: v for k, v in asdict(verdict).items() if v or k == "number"} for verdict in verdicts]
    (folder / "report.json").write_text(json.dumps({"seed": seed, "trials": rows}, indent=1) + "\n")
    counts = {n: sum(getattr(v, n) for v in done) for n in ("wrong", "lost", "tracebacks", "unfinished")}
    lines = [
        "# Fault campaign",
        "",
        f"{len(done)} faults, seed {seed}, {seconds / 60:.0f} minutes. After each one the same command was "
        "called again, and what it came to was compared with an undisturbed run, bit for bit; where packs "
        "were cut anew, for want of memory or because one prompt or row of a pack was damaged, values within "
        f"{TOLERANCE:g} count as equal (docs/determinism.md).",
        "",
        "Finished work is the rows of a study's database. Those there just before a file was damaged and "
        "still readable after it, or those there when another fault was over, have to be there at the end, "
        "seconds included. What a fault that is no damage destroys before it is over shows only in wrong "
        "numbers. Meta-training and adaptation alone have no such rows: their results are compared; whether "
        "they went on from their checkpoint is not looked at here (tests do).",
        "",
        f"* wrong numbers: **{counts['wrong']}**",
        f"* finished work that was computed again without need: **{counts['lost']}** (studies and reports)",
        f"* tracebacks: **{counts['tracebacks']}**",
        f"* commands that never succeeded again: **{counts['unfinished']}**",
        "* faults after which a damaged file had to be moved away or deleted by hand: "
        f"{sum(v.by_hand for v in done)}",
        f"* faults this machine could not make: {len(verdicts) - len(done)}",
        "",
        "| fault | on | trials | calls | by hand | failed |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (kind, target), n in sorted(Counter((v.kind, v.target) for v in done).items()):
        own = [v for v in done if (v.kind, v.target) == (kind, target)]
        bad = sum(bool(v.wrong or v.lost or v.tracebacks or v.unfinished) for v in own)
        calls, hand = sum(v.calls for v in own), sum(v.by_hand for v in own)
        lines.append(f"| {kind.replace('_', ' ')} | {target} | {n} | {calls} | {hand} | {bad} |")
    failed = [v for v in done if v.wrong or v.lost or v.tracebacks or v.unfinished]
    lines += ["", *(f"* trial {v.number}, {v.kind} on {v.target}: {v.notes}" for v in failed)]
    (folder / "report.md").write_text("\n".join(lines).rstrip() + "\n")
