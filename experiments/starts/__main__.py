"""Take a learned start out of a study, with what it gained there, and put it among those that are shipped.

    python -m experiments.starts runs/demo multitask 42 tiny-mini --license Apache-2.0

The study has to be done. What is recorded is the row of the study's own report: the mean gain in points over
plain prompt tuning at the largest budget, over its target tasks, with its interval.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.prompt.shipped import FOLDER, GAINED
from softstart.study import report_study
from softstart.study.results.stores import open_store

KEPT = ("method", "algorithm", "setting", "source", "template")
"""What a start keeps of the facts that the study recorded with it."""


def take(study: Path, method: str, seed: int, name: str, license: str, data: str) -> Path:
    """Write the start of a method and a meta-training seed; the file."""
    outcome = report_study(study)
    if outcome.missing:
        raise SoftstartError(f"{outcome.missing} runs are missing", where=str(study), fix="Finish the study.")
    with open_store(study, readonly=True) as store:
        found = [row for row in store.metas().values() if (row["method"], row["seed"]) == (method, seed)]
    if len(found) != 1:
        raise SoftstartError(f"no meta-training of '{method}' with seed {seed}", where=str(study))
    prompt = SoftPrompt.load(study / found[0]["prompt"])
    rows = outcome.rows[outcome.rows["method"] == method]
    gain = outcome.arg[outcome.arg["method"] == method].iloc[0]
    gained = {
        "points": round(float(gain["mean_abs_gain"]), 1),
        "low": round(float(gain["abs_low"]), 1),
        "high": round(float(gain["abs_high"]), 1),
        "tasks": int(gain["n_tasks"]),
        "samples": int(rows["sample"].nunique()),
        "seeds": int(rows["seed"].nunique()),
        "steps": int(gain["budget"]),
    }
    facts = {key: prompt.info[key] for key in KEPT} | {"license": license, GAINED: gained}
    file = FOLDER / f"{name}.safetensors"
    replace(prompt, info=facts | ({"data": data} if data else {}), further={}).save(file)
    return file


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("method")
    parser.add_argument("seed", type=int)
    parser.add_argument("name")
    parser.add_argument("--license", required=True, help="of the start: what its source tasks allow")
    parser.add_argument("--data", default="", help="the licenses of the source tasks' data, in words")
    given = parser.parse_args()
    print(take(**vars(given)))


if __name__ == "__main__":
    main()
