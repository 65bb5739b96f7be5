"""Draw the gains of all settings of the real study that are done.

python -m benchmarks.real.figure        # benchmarks/real/gains.svg, from rows/real-*.json
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.real.findings import BASELINE, LEARNED, PRIMARY, ROWS

from softstart.report.figures import dots
from softstart.report.standalone import alone
from softstart.report.style import MethodStyles

SETTINGS = ("cls2cls", "nocls2cls", "both2cls")
FILE = Path(__file__).resolve().parent / "gains.svg"


def done() -> list[str]:
    """The settings that were analyzed."""
    return [setting for setting in SETTINGS if _file(setting).exists()]


def _file(setting: str) -> Path:
    return ROWS / f"real-{setting}.json"


def figure() -> str:
    """The primary outcome as an SVG: a row a setting and number of steps, an interval a method."""
    styles = MethodStyles([BASELINE, *LEARNED])
    rows: dict[str, dict[str, float]] = {}
    limits: dict[tuple[str, str], tuple[float, float]] = {}
    for setting in done():
        gains = json.loads(_file(setting).read_text(encoding="utf-8"))
        for steps in PRIMARY:
            row = f"{setting}, {steps} steps"
            of = {styles.label(method): ends for method, ends in gains[str(steps)].items()}
            rows[row] = {label: gain for label, (gain, _, _) in of.items()}
            limits |= {(row, label): (low, high) for label, (_, low, high) in of.items()}
    title = "Points gained over a plain start: SmolLM2, means over ten real tasks, 95 % intervals"
    drawn = dots(rows, styles.numbers, title=title, axis="points gained", unit="", limits=limits)
    return alone(title, drawn, styles, styles.others)


if __name__ == "__main__":
    FILE.write_text(figure(), encoding="utf-8")
    print(FILE)
