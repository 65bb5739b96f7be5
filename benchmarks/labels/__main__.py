"""Time and memory of ranking many labels: as a tree, and each label in a row of its own.

    python -m benchmarks.labels [--models softstart/tiny smollm2] [--classes 100 1000] [--rounds 3] [--cpu]

Every measurement is a fresh process, which ranks once to warm up and then once for the clock. Its peak is
what the process takes beyond the loaded model. With ``--cpu`` it ranks once only, and seconds are those of
the processor: for a busy machine and a large model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from softstart.backbone import Backbone, Batch, load_backbone
from softstart.backbone.devices import status_bytes

ROWS, TEXT, PROMPT, BOUND = 4, 60, 20, 4096
WAYS = ("tree", "rows")
SETS = ("shared", "unrelated")


def labels(kind: str, classes: int, end: int) -> torch.Tensor:
    """Labels of three tokens and the end token [C, 4].

    ``shared``: every combination of as many first, second and third tokens, like "cancel flight Paris".
    ``unrelated``: no two begin with the same token.
    """
    if kind == "unrelated":
        words = (torch.arange(classes)[:, None] + torch.tensor([0, 7, 11])) % 1500
    else:
        each = round(classes ** (1 / 3) + 0.499)
        words = torch.cartesian_prod(*(torch.arange(each) + each * i for i in range(3)))[:classes]
    return torch.cat((words + 50, torch.full((classes, 1), end)), 1)


def measure(model: str, kind: str, classes: int, way: str, *, cpu: bool = False) -> dict[str, float]:
    """Seconds and MiB of one ranking, and the checksum of its result."""
    torch.set_num_threads(1)
    backbone = load_backbone(model, device="cpu")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(50, 1500, (ROWS, TEXT), generator=generator)
    empty, run = torch.full((ROWS, 1), -100), torch.zeros(ROWS, dtype=torch.long)
    batch = Batch(ids, torch.ones_like(ids), empty, run)
    prompts = backbone.vocabulary[100 : 100 + PROMPT].clone()[None]
    candidates = labels(kind, classes, backbone.tokenizer.eos_token_id).expand(ROWS, -1, -1)
    rank = backbone.rank if way == "tree" else lambda *given: Backbone.rank(backbone, *given)
    before = status_bytes("VmRSS")
    clock = time.process_time if cpu else time.perf_counter
    if not cpu:
        rank(prompts, batch, candidates, BOUND)
    begin = clock()
    scores = rank(prompts, batch, candidates, BOUND)
    seconds = clock() - begin
    peak = (status_bytes("VmHWM") - before) / 2**20
    return {"seconds": seconds, "mib": peak, "sum": float(scores.double().sum())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["softstart/tiny", "smollm2"])
    parser.add_argument("--classes", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="processor seconds of one call, without a warm-up")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        model, kind, classes, way = arguments.case
        print(json.dumps(measure(model, kind, int(classes), way, cpu=arguments.cpu)))
        return
    print("| model | labels | beginnings | tree, s | rows, s | rows / tree | tree, MiB | rows, MiB |")
    print("|---|--:|---|--:|--:|--:|--:|--:|")
    for model in arguments.models:
        for classes in arguments.classes:
            for kind in SETS:
                print(_row(model, kind, classes, arguments.rounds, arguments.cpu), flush=True)


def _row(model: str, kind: str, classes: int, rounds: int, cpu: bool) -> str:
    """A line of the table; rounds alternate between the ways."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way].append(_fresh([*(["--cpu"] if cpu else []), "--case", model, kind, str(classes), way]))
    sums = {way: of[0]["sum"] for way, of in found.items()}
    if abs(sums["tree"] - sums["rows"]) > 1e-4 * abs(sums["rows"]):
        raise ValueError(f"the ways disagree: {sums}")
    ratios = [
        rows["seconds"] / tree["seconds"] for tree, rows in zip(found["tree"], found["rows"], strict=True)
    ]
    times = [f"{median(one['seconds'] for one in found[way]):.2f}" for way in WAYS]
    peaks = [f"{median(one['mib'] for one in found[way]):,.0f}" for way in WAYS]
    ratio = f"{min(ratios):.1f} to {max(ratios):.1f}"
    return f"| {model} | {classes:,} | {kind} | {' | '.join(times)} | {ratio} | {' | '.join(peaks)} |"


def _fresh(options: Sequence[str]) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.labels", *options]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
