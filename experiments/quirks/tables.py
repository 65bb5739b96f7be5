"""Result tables as Markdown, by ``softstart.analysis``."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from softstart.analysis import arg_table, compare_methods, with_tests


def markdown(table: pd.DataFrame) -> Iterator[str]:
    """A table as lines."""
    yield "| " + " | ".join(map(str, table.columns)) + " |"
    yield "|" + "---|" * len(table.columns)
    for row in table.itertuples(index=False):
        yield "| " + " | ".join(map(_text, row)) + " |"
    yield ""


def arg_lines(rows: pd.DataFrame) -> Iterator[str]:
    """ARG of every method under every variant and setting, with intervals."""
    table = with_tests(rows, arg_table(rows))
    table = table[table["method"] != "pt"]
    shown = pd.DataFrame(
        {
            **{c: table[c] for c in ("setting", "variant", "method") if table[c].nunique() > 1},
            "ARG %": _banded(table, "arg", "low", "high"),
            "median %": _banded(table, "median_relgain", "median_low", "median_high"),
            "points": _banded(table, "mean_abs_gain", "abs_low", "abs_high"),
            "W/T/L": [f"{w}/{t}/{n}" for w, t, n in table[["wins", "ties", "losses"]].to_numpy()],
            "p (Holm)": table["p_holm"].map("{:.2g}".format),
        }
    )
    yield from markdown(shown)


def contrast_lines(rows: pd.DataFrame, of: str = "variant", baseline: str = "main") -> Iterator[str]:
    """Variants against each other in points, method by method: a variant in the place of a method."""
    turned = rows.assign(setting=rows["setting"] + ", " + rows["method"], method=rows[of])
    turned = turned.drop(columns=["variant", "prompt_length", "budget"])
    turned = turned[turned["setting"].isin(turned.loc[turned["method"] == baseline, "setting"])]
    table = arg_table(turned, baseline)
    tests = compare_methods(turned, baseline)
    tests = tests[tests["other"] == baseline][["setting", "method", "p", "p_holm"]]
    table = table.merge(tests, on=["setting", "method"])
    shown = pd.DataFrame(
        {
            "setting, method": table["setting"],
            of: table["method"],
            "points": _banded(table, "mean_abs_gain", "abs_low", "abs_high"),
            "W/T/L": [f"{w}/{t}/{n}" for w, t, n in table[["wins", "ties", "losses"]].to_numpy()],
            "p": table["p"].map("{:.2g}".format),
            "p (Holm)": table["p_holm"].map("{:.2g}".format),
        }
    )
    yield from markdown(shown)


def _banded(table: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    return [f"{v:+.1f} [{a:+.1f}, {b:+.1f}]" for v, a, b in table[[value, low, high]].to_numpy()]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
