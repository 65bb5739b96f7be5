"""results.md from what was measured, with the arithmetic that extrapolates it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# One setting of the published study: target tasks, samples, learning rates, steps, rows a step.
TASKS, SAMPLES, RATES, STEPS, ROWS = 10, 5, 4, 3000, 16
EVERY, DEV, TEST = 50, 32, 1000
METHODS = 5
"""Prompt tuning from a plain start and from four learned ones; fine-tuning is not among them."""
OUTER = 5000


def markdown(results: Mapping[str, Any]) -> str:
    """The page."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results.get("machine", {})
    yield "# Softstart on a GPU: results"
    yield ""
    if not machine:
        yield "**No GPU was at hand. Nothing here is measured; every number is open.** To measure:"
        yield ""
        yield "```bash"
        yield "python -m benchmarks.gpu --out benchmarks/gpu"
        yield "```"
        return
    if machine["smoke"]:
        yield "**A smoke run on a CPU with tiny shapes: the times mean nothing.**"
        yield ""
    yield ", ".join(f"{key} {value}" for key, value in machine.items() if key != "smoke")
    for name, section in results.items():
        if name != "machine" and section:
            yield from ("", f"## {name}", "")
            yield from _table(section, results)
    yield from _setting(results)


def _table(section: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """A row for each measurement, or for each of those that one has compared."""
    section = {
        f"{what}: {who}" if who else what: row
        for what, measured in section.items()
        for who, row in (measured.items() if _nested(measured) else [("", measured)])
    }
    columns = list(dict.fromkeys(key for row in section.values() for key in row))
    top = results.get("peak", {}).get("matmul", {}).get("flops")
    share = bool(top) and "flops" in columns and "matmul" not in section
    yield "| what | " + " | ".join(columns) + (" | of peak |" if share else " |")
    yield "|---" * (1 + len(columns) + share) + "|"
    for what, row in section.items():
        cells = [_number(row.get(column, "")) for column in columns]
        if share:
            cells.append(f"{row['flops'] / top:.1%}" if "flops" in row else "")
        yield f"| {what} | " + " | ".join(cells) + " |"


def _nested(measured: Mapping[str, Any]) -> bool:
    return all(isinstance(row, Mapping) for row in measured.values())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _setting(results: Mapping[str, Any]) -> Iterator[str]:
    """Seconds of one full setting, from the best pack and the published decoding."""
    runs = TASKS * SAMPLES * RATES
    trained = runs * STEPS * ROWS
    dev, test = runs * (STEPS // EVERY + 1) * DEV, TASKS * SAMPLES * TEST
    shapes = dict.fromkeys(what.split()[0] for what in results.get("packs", {}))
    for shape in shapes:
        packs = {what: row for what, row in results["packs"].items() if what.split()[0] == shape}
        rates = [row["rows"] for row in packs.values() if "rows" in row]
        searches = [
            r["rows"]
            for w, r in results.get("decoding", {}).items()
            if f"{shape} beams=4" in w and "rows" in r
        ]
        search = max(searches, default=0.0)
        outer = results.get("meta", {}).get(f"{shape} 2 tasks", {}).get("seconds")
        if not (rates and search and outer):
            continue
        best = max(rates)
        adaptation = METHODS * trained / best / 3600
        evaluation = METHODS * (dev + test) / search / 3600
        maml = OUTER * outer / 3600
        yield from ("", f"## One setting of the published study, {shape}: extrapolated, not run", "")
        yield (
            f"* adaptation: {METHODS} methods x {runs} runs ({TASKS} tasks x {SAMPLES} samples x {RATES} "
            f"rates) x {STEPS} steps x {ROWS} rows / {best:.4g} rows/s = {adaptation:.3g} h"
        )
        yield (
            "* evaluation, 4 beams to the last token (trained prompts end after a few): "
            f"{METHODS} x ({runs} runs x {STEPS // EVERY + 1} dev evaluations x {DEV} "
            f"rows + {TASKS * SAMPLES} x {TEST} test rows) / {search:.4g} rows/s = {evaluation:.3g} h"
        )
        yield f"* MAML: {OUTER} outer steps x {outer:.4g} s = {maml:.3g} h"
        yield (
            f"* together {adaptation + evaluation + maml:.3g} h, without the other meta-trainings and "
            "without fine-tuning"
        )
