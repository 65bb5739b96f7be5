"""The published record under our own analysis: ``python -m experiments.published RESULTS.csv [--mini CSV]``.

RESULTS.csv holds one row a setting, method, backbone, variant, task and sample, from the released tables of
Qin et al. (ACL 2023). Writes README.md next to this file; with ``--mini`` writes agreement.md instead: how
far the rankings of methods agree with those of a study of the mini gym (the results.csv of
studies/mini-main.yaml).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from experiments.quirks.tables import markdown

from softstart.analysis import (
    CELL,
    arg_table,
    average_relative_gain,
    compare_methods,
    influence,
    relative_gains,
    with_tests,
)

HERE = Path(__file__).parent
BACKUP = "yelp_onlybs8_backup"
YELP = "yelp_polarity"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.published", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--mini", type=Path, help="results.csv of a study of the mini gym")
    given = parser.parse_args()
    rows = pd.read_csv(given.results)
    if given.mini:
        lines = "\n".join(agreement(rows, pd.read_csv(given.mini)))
        (HERE / "agreement.md").write_text(lines + "\n", encoding="utf-8")
        return
    intro = (HERE / "intro.md").read_text(encoding="utf-8")
    (HERE / "README.md").write_text(intro + "\n" + "\n".join(record(rows)) + "\n", encoding="utf-8")


def record(rows: pd.DataFrame) -> Iterator[str]:
    """The tables, as Markdown lines."""
    table = with_tests(rows, arg_table(rows))
    table = table[table["method"] != "pt"].assign(gain=table["low"] > 0, loss=table["high"] < 0)
    gains = relative_gains(rows)
    heavy = heaviest(gains)
    main = table[(table["variant"] == "main") & (table["backbone"] == "t5-large")]
    yield from counts(main)
    yield "## The main table\n"
    yield "ARG in % with its 95 % interval, without the task that changes it most, and its median over tasks;"
    yield "the mean gain in points and the symmetric gain (relative to the mean of both scores, so without a"
    yield "pole at zero), each with its interval; wins, ties and losses over tasks; p of the paired test,"
    yield "corrected within the setting.\n"
    yield from markdown(shown(main.merge(heavy, on=CELL), ["setting", "method"]))
    yield "## One task at a time\n"
    flips = main.merge(influence(gains), on=CELL)
    flips = flips[flips["arg"] * flips["arg_without"] < 0]
    cells = flips.groupby(["setting", "method"]).ngroups
    yield f"{cells} entries of the main table change the sign of their ARG when some one task is left out:\n"
    columns = {"arg": "ARG %", "arg_without": "without"}
    kept = flips[["setting", "method", "task", *columns]]
    yield from markdown(kept.rename(columns=columns).round(1))
    yield "## The other baseline of yelp_polarity\n"
    yield "Plain prompt tuning had batches of 4 and 8 for this task alone in these settings; ARG in % with"
    yield "the rows that its author kept aside, of batch 8 alone:\n"
    yield from markdown(other_baseline(rows, main))
    yield "## The same baseline twice\n"
    yield "Plain prompt tuning of a task that was run anew for another setting, mean test in %: noise of the"
    yield "protocol alone, but for yelp_polarity (see above) and glue-qnli (another test set):\n"
    yield from markdown(twice(rows))
    yield "## The ablations\n"
    rest = table[(table["variant"] != "main") | (table["backbone"] != "t5-large")]
    yield from markdown(shown(rest.merge(heavy, on=CELL), ["setting", "backbone", "variant", "method"]))
    yield "## Methods against each other\n"
    yield "Pairs of methods of the main table whose paired test, corrected within the setting, is below .05,"
    yield "difference in points:\n"
    pairs = compare_methods(rows)
    pairs = pairs[(pairs["variant"] == "main") & (pairs["backbone"] == "t5-large") & (pairs["other"] != "pt")]
    below = pairs[pairs["p_holm"] < 0.05]
    kept = ["setting", "method", "other", "difference_points", "n_tasks", "p_holm"]
    table = below[kept].rename(columns={"difference_points": "difference"})
    yield from markdown(table.round({"difference": 1}))
    yield f"{len(below)} of {len(pairs)} pairs.\n"


def counts(main: pd.DataFrame) -> Iterator[str]:
    """How many entries are beyond noise."""
    yield "## In short\n"
    beyond, held = int((main["gain"] | main["loss"]).sum()), int((main["p_holm"] < 0.05).sum())
    points = int(((main["abs_low"] > 0) | (main["abs_high"] < 0)).sum())
    gains, losses = int(main["gain"].sum()), int(main["loss"].sum())
    yield (
        f"The main table has {len(main)} entries: fine-tuning and four learned starts in eleven settings on "
        f"T5-large. The 95 % interval of ARG excludes zero in {beyond} of them ({gains} gains, {losses} "
        f"losses), that of the mean gain in points in {points}; the paired test, corrected within its "
        f"setting, is below .05 in {held}. The others are within the noise of tasks and samples. Settings "
        "with the same targets share fine-tuning and baseline, so that entries are not independent.\n"
    )
    learned = main[main["method"] != "ft"]
    by = learned.groupby("method")[["gain", "loss"]].sum().reset_index()
    yield "Settings of eleven in which the interval of ARG is above or below zero:\n"
    yield from markdown(by)


def heaviest(gains: pd.DataFrame) -> pd.DataFrame:
    """The task of each cell that changes its ARG most when it is left out."""
    moved = influence(gains).dropna(subset=["change"])
    rows = moved.groupby(CELL)["change"].apply(lambda change: change.abs().idxmax())
    return moved.loc[rows, [*CELL, "task", "arg_without"]]


def shown(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Columns to read."""
    band = "{:+.1f} [{:+.1f}, {:+.1f}]".format
    return pd.DataFrame(
        {
            **{name: table[name] for name in names},
            "ARG %": [band(*v) for v in table[["arg", "low", "high"]].to_numpy()],
            "without": [f"{v:+.1f} ({t})" for v, t in table[["arg_without", "task"]].to_numpy()],
            "median %": table["median_relgain"].map("{:+.1f}".format),
            "points": [band(*v) for v in table[["mean_abs_gain", "abs_low", "abs_high"]].to_numpy()],
            "symmetric %": [
                band(*v) for v in table[["mean_symmetric_gain", "symmetric_low", "symmetric_high"]].to_numpy()
            ],
            "W/T/L": [f"{w}/{t}/{n}" for w, t, n in table[["wins", "ties", "losses"]].to_numpy()],
            "p": table["p_holm"].map("{:.2g}".format),
        }
    )


def other_baseline(rows: pd.DataFrame, main: pd.DataFrame) -> pd.DataFrame:
    """ARG with the kept-aside rows of plain prompt tuning on yelp_polarity in place of the tabled ones."""
    aside = rows[rows["variant"] == BACKUP]
    settings = set(main.loc[main["setting"].str.endswith("2cls"), "setting"])
    doubled = (rows["method"] == "pt") & (rows["task"] == YELP) & (rows["variant"] == "main")
    doubled &= rows["setting"].isin(settings) & (rows["backbone"] == "t5-large")
    parts = [rows[~doubled & (rows["variant"] == "main") & (rows["backbone"] == "t5-large")]]
    parts += [aside.drop_duplicates("split_seed").assign(setting=name, variant="main") for name in settings]
    other = average_relative_gain(pd.concat(parts)).set_index(["setting", "method"])["arg"]
    known = main[main["setting"].isin(settings)].set_index(["setting", "method"])["arg"]
    table = pd.DataFrame({"as tabled": known, "batch 8 alone": other.reindex(known.index)})
    return table.round(1).reset_index()


def twice(rows: pd.DataFrame) -> pd.DataFrame:
    """Plain prompt tuning of one task in several settings' tables, where the rows are not shared."""
    baseline = rows[(rows["method"] == "pt") & (rows["variant"] == "main") & (rows["backbone"] == "t5-large")]
    baseline = baseline[baseline["shared_from"].isna()]
    scores = baseline.groupby(["task", "setting"])["test"].mean().mul(100).round(1).reset_index()
    several = scores.groupby("task").filter(lambda t: t["test"].nunique() > 1)
    lines = [
        {
            "task": task,
            "scores": ", ".join(f"{s} {v:g}" for s, v in zip(part["setting"], part["test"], strict=True)),
            "change %": round(100 * (part["test"].max() / part["test"].min() - 1), 1),
        }
        for task, part in several.groupby("task")
    ]
    return pd.DataFrame(lines)


def agreement(published: pd.DataFrame, mini: pd.DataFrame) -> Iterator[str]:
    """Rank correlations of the methods' ARG, published and on the mini gym, setting by setting."""
    pairs = {"nopara2para": "mini-nonpara2para"}
    main = published[(published["variant"] == "main") & (published["backbone"] == "t5-large")]
    theirs = average_relative_gain(main).set_index(["setting", "method"])["arg"]
    top = mini[mini["budget"] == mini["budget"].max()] if "budget" in mini else mini
    ours = average_relative_gain(top).set_index(["setting", "method"])["arg"]
    lines = []
    for setting in theirs.index.unique("setting"):
        name = pairs.get(setting, f"mini-{setting}")
        if name not in ours.index.unique("setting"):
            continue
        both = pd.DataFrame({"theirs": _named(theirs[setting]), "ours": _named(ours[name])})
        both = both.dropna().drop("pt")
        lines.append(
            {
                "setting": setting,
                "methods": len(both),
                "rank correlation": both["theirs"].rank().corr(both["ours"].rank()),
                "best there": both["theirs"].idxmax(),
                "best here": both["ours"].idxmax(),
            }
        )
    yield "# The published ranking of methods compared with that on the mini gym\n"
    yield "Rank correlation (Spearman) of fine-tuning and the four learned starts by ARG over PT: T5-large in"
    yield "the released tables, the embedded model in `studies/mini-main.yaml` at its largest budget. Made by"
    yield "`python -m experiments.published RESULTS.csv --mini runs/mini-main/results.csv`.\n"
    yield from markdown(pd.DataFrame(lines).round(2))
    mean = pd.DataFrame(lines)["rank correlation"].mean()
    yield f"Mean rank correlation over {len(lines)} settings: {mean:.2f}."


def _named(gains: pd.Series) -> pd.Series:
    return gains.rename(index={"multi": "multitask"})


if __name__ == "__main__":
    main()
