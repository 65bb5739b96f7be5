"""Measure softstart on a GPU, one call: ``python -m benchmarks.gpu --out results``.

Every measurement is kept in OUT/results.json as soon as it is made; the same call goes on where it was
stopped and measures again only what failed. OUT/results.md is written from it. ``--smoke`` runs every section
on the CPU with tiny shapes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for the determinism mode
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # shapes alone: nothing is fetched

import torch
from benchmarks.gpu.report import markdown
from benchmarks.gpu.sections import SECTIONS, Found
from benchmarks.gpu.work import Size

import softstart
from softstart.backbone import compiling
from softstart.backbone.shapes import T5_V1_1
from softstart.diagnostics.machine import this_machine
from softstart.storage.files import atomic
from softstart.study.cost.gpu_hours import rates_of

HERE = Path("benchmarks/gpu")
PACKAGED = Path("src/softstart/study/cost/measured.json")
PACKAGES = ("torch", "transformers", "peft")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--shapes", nargs="+", default=["large", "xl"], choices=list(T5_V1_1))
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    if not asked.smoke and not torch.cuda.is_available():
        print(
            "error: no GPU is at hand; --smoke runs all on the CPU with tiny shapes",
            file=sys.stderr,
        )
        return 1
    if asked.smoke:
        compiling.BACKEND = "aot_eager"  # the graphs alone: a C compiler would take minutes
        torch.set_num_threads(1)
    size = Size.smoke() if asked.smoke else Size.full(tuple(asked.shapes))
    file = asked.out / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results["machine"] = _machine(size)
    for name in asked.sections:
        section = results.setdefault(name, {})
        for what, measure in SECTIONS[name](size):
            if what in section and "error" not in section[what]:
                continue
            print(f"{name}: {what}", flush=True)
            section[what] = _safely(measure)
            _save(asked.out, results)
    _save(asked.out, results)
    print(asked.out / "results.md")
    wrong = [what for what, check in results.get("correctness", {}).items() if not check.get("ok")]
    if wrong:
        print(f"error: not correct on this device: {', '.join(wrong)}", file=sys.stderr)
    return len(wrong)


def _safely(measure: object) -> Found:
    """A measurement, or why there is none."""
    try:
        result: Found = measure()  # type: ignore[operator]
    except torch.OutOfMemoryError:
        result = {"error": "out of memory"}
    except Exception as problem:
        traceback.print_exc()
        first = (str(problem).splitlines() or [""])[0]
        result = {"error": f"{type(problem).__name__}: {first}"}
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result


def _machine(size: Size) -> Found:
    machine = this_machine()
    device = torch.cuda.get_device_name() if size.device.type == "cuda" else machine.devices[0].kind
    versions = {"softstart": softstart.__version__, **{k: machine.packages[k] for k in PACKAGES}}
    driver = {"cuda": str(torch.version.cuda)} if size.device.type == "cuda" else {}
    sizes = {"prompt": size.prompt, "rows": size.rows, "text": size.text}
    return {"device": device, "smoke": size.device.type != "cuda", **versions, **driver, **sizes}


def _save(folder: Path, results: dict[str, Found]) -> None:
    with atomic(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
    with atomic(folder / "results.md") as temporary:
        temporary.write_text(markdown(results), encoding="utf-8")
    if folder.resolve() == HERE.resolve() and not results["machine"]["smoke"]:
        with atomic(PACKAGED) as temporary:  # what a dry run takes hours from
            temporary.write_text(json.dumps(rates_of(results), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
