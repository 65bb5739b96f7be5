"""``python -m tests.faults --faults 200 --seed 0 --out benchmarks/faults``, from the repository's root."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.campaign import SHORT, Campaign, Verdict, schedule, write_report
from faults.kinds import KINDS


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[kind.__name__ for kind in KINDS], help="one kind of fault")
    parser.add_argument("--on", action="append", help="only these targets: study, workers, meta-train, …")
    parser.add_argument("--short", action="store_true", help="the few faults of the default test run")
    parser.add_argument("--real", type=float, default=0.5, help="share of trials of the real program")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.md and report.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    verdicts: list[Verdict] = []
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    campaign = Campaign(root, asked.seed, asked.real)
    drawn = [
        (kind, target)
        for kind, target in (SHORT if asked.short else schedule(asked.faults, asked.seed))
        if asked.only in (None, kind.__name__) and (not asked.on or target in asked.on)
    ]
    for number, (kind, target) in enumerate(drawn):
        verdict = campaign.trial(number, kind, target)
        verdicts.append(verdict)
        bad = verdict.wrong or verdict.lost or verdict.tracebacks or verdict.unfinished
        print(f"{time.monotonic() - began:6.0f} s  {'BAD' if bad else 'ok '}  {verdict}", flush=True)
        write_report(asked.out, asked.seed, verdicts, time.monotonic() - began)
    print(f"what failed is kept in {root}")
    return int(any(v.wrong or v.lost or v.tracebacks or v.unfinished for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
