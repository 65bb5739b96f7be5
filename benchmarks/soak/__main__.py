"""Thousands of tiny runs in one process: memory, open files, size of the database and speed over time.

``python -m benchmarks.soak --minutes 60`` writes ``soak.csv``, ``soak.json`` and ``soak.svg`` next to
this file (``--out`` elsewhere). A study grows: round after round more meta seeds are added to it and it is
run again in the same folder, in this one process, as a user with a long grid would; after ``GROWTH`` rounds
the next one begins in an empty folder, which separates growth with a study from growth with time. Speed is
per second of CPU, so that other work on the machine does not show. Every figure is a measurement; the only
assertion is that no run failed.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import numpy as np
import torch

from helpers.toy_study import make_world, toy
from softstart.backbone.devices import status_bytes
from softstart.study import run_study

CHANGES: dict[str, Any] = {
    "methods": {"pt": {}, "reptile": {"inner_lr": 0.1, "inner_steps": 1}},
    "meta": {"steps": 2, "lr": 0.3, "checkpoint_every": 1},
    "adaptation": {"steps": 20, "eval_every": 10},
    "learning_rates": [0.5, 0.4, 0.3, 0.2],
}
NEW = 20
"""Meta seeds that a round adds."""
GROWTH = 10
"""Rounds of a study."""
COLUMNS = (
    "minutes", "study", "runs", "held_mb", "peak_mb", "files", "threads", "db_mb", "runs_per_cpu_s",
    "open_cpu_s",
)  # fmt: skip


def measured(folder: Path) -> dict[str, float]:
    """What the process and the database hold now, and the most that the process has held.

    Free memory is given back first (glibc keeps it otherwise), so that ``held_mb`` is what is in use.
    """
    gc.collect()
    if sys.platform.startswith("linux"):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return {
        "held_mb": status_bytes("VmRSS") / 2**20,
        "peak_mb": status_bytes("VmHWM") / 2**20,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "db_mb": sum(file.stat().st_size for file in folder.glob("study.db*")) / 2**20,
    }


def rounds(world: Path, root: Path, minutes: float) -> list[dict[str, float]]:
    """Grow studies one after the other until the time is over; one row a round."""
    began, rows, before, done = time.monotonic(), [], 0, 0
    while time.monotonic() - began < 60 * minutes:
        number, grown = divmod(len(rows), GROWTH)
        folder, before = root / f"study-{number}", before if grown else done
        study, since = toy(world, meta_seeds=list(range(NEW * (grown + 1))), **CHANGES), time.process_time()
        outcome = run_study(study, folder, device="cpu")
        assert not outcome.failures, outcome.failures
        assert not outcome.missing
        spent = time.process_time() - since
        # The same study once more: what a round takes without its new runs (plan, tables, report).
        since = time.process_time()
        run_study(study, folder, device="cpu")
        again = time.process_time() - since
        total = before + outcome.rows["run"].nunique() * len(CHANGES["learning_rates"])
        del outcome
        row = {"minutes": (time.monotonic() - began) / 60, "study": number + 1, "runs": total}
        row |= measured(folder)
        row |= {"runs_per_cpu_s": (total - done) / max(1e-9, spent - again), "open_cpu_s": again}
        rows.append({name: row[name] for name in COLUMNS})
        done = total
        print("  ".join(f"{name} {row[name]:.4g}" for name in COLUMNS), flush=True)
    return rows


def trends(rows: list[dict[str, float]], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Least-squares slopes by 1,000 runs: inside of the last whole study, and over the ends of studies.

    The first one is left out of these: it loads what is loaded once.
    """
    ends = rows[GROWTH - 1 :: GROWTH]
    last = rows[GROWTH * (len(ends) - 1) : GROWTH * len(ends)]
    return {
        "inside of a study": {name: _slope(last, name) for name in names},
        "from study to study": {name: _slope(ends[1:], name) for name in names},
    }


def _slope(rows: list[dict[str, float]], name: str) -> float | None:
    if len(rows) < 2:
        return None
    return 1000 * float(np.polyfit([row["runs"] for row in rows], [row[name] for row in rows], 1)[0])


def figure(rows: list[dict[str, float]]) -> str:
    """Four small charts over the number of runs, as SVG."""
    titles = {
        "held_mb": "memory in use, MB",
        "files": "open files",
        "db_mb": "database, MB",
        "runs_per_cpu_s": "new runs a second of CPU",
    }
    width, height, parts = 360, 200, []
    for i, (name, title) in enumerate(titles.items()):
        x0, y0 = 60 + (i % 2) * (width + 80), 40 + (i // 2) * (height + 70)
        top, right = max(row[name] for row in rows) * 1.1 or 1, max(row["runs"] for row in rows) or 1
        points = " ".join(
            f"{x0 + width * row['runs'] / right:.1f},{y0 + height * (1 - row[name] / top):.1f}"
            for row in rows
        )
        parts.append(
            f'<text x="{x0}" y="{y0 - 10}" font-weight="600">{title}</text>'
            f'<path d="M{x0} {y0}V{y0 + height}H{x0 + width}" fill="none" stroke="#999"/>'
            f'<text x="{x0 - 6}" y="{y0 + 10}" text-anchor="end">{top:.3g}</text>'
            f'<text x="{x0 - 6}" y="{y0 + height}" text-anchor="end">0</text>'
            f'<text x="{x0 + width}" y="{y0 + height + 16}" text-anchor="end">{right:,.0f} runs</text>'
            f'<polyline points="{points}" fill="none" stroke="#1f5fbf" stroke-width="1.8"/>'
        )
    body = "".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 580" font-family="sans-serif" '
        f'font-size="12"><rect width="920" height="580" fill="#fff"/>{body}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = rounds(make_world(root), root, asked.minutes)
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "soak.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows({name: round(value, 4) for name, value in row.items()} for row in rows)
    (asked.out / "soak.svg").write_text(figure(rows))
    facts = {
        "minutes": rows[-1]["minutes"],
        "runs": rows[-1]["runs"],
        "slopes by 1,000 runs": trends(rows, ("held_mb", "files", "threads", "db_mb", "runs_per_cpu_s")),
        "last": rows[-1],
    }
    (asked.out / "soak.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
