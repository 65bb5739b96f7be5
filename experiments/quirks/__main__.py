"""The quirk studies: ``python -m experiments.quirks run|cosines|results [NAMES] [--out FOLDER]``.

``run`` computes what is missing of studies/quirk-*.yaml, ``cosines`` the angles between meta-gradients, and
``results`` writes results.md from the folders. All of it is ``softstart``'s own analysis.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd
from experiments.quirks import cosines
from experiments.quirks.tables import arg_lines, contrast_lines, markdown

from softstart.analysis.resampling import DEFAULT_INTERVAL
from softstart.study import default_workers, load_study, run_study

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STUDIES = {file.stem.removeprefix("quirk-"): file for file in sorted((ROOT / "studies").glob("quirk-*.yaml"))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.quirks", description=__doc__)
    parser.add_argument("what", choices=["run", "cosines", "results"])
    parser.add_argument("names", nargs="*", default=[], help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="where the study folders are")
    parser.add_argument("--workers", type=int, default=None)
    given = parser.parse_args()
    names = given.names or list(STUDIES)
    if given.what == "run":
        for name in names:
            study = load_study(STUDIES[name])
            outcome = run_study(study, given.out / study.name, workers=given.workers or default_workers(None))
            print(
                name, f"{len(outcome.rows)} results, {outcome.missing} missing", *outcome.failures, flush=True
            )
    elif given.what == "cosines":
        print(cosines.report(given.out / "quirk-inner-rate", HERE / "cosines.csv"))
    else:
        page = HERE / "results.md"
        before = sections(page.read_text(encoding="utf-8")) if page.exists() else {}
        folders = {name: given.out / f"quirk-{name}" for name in STUDIES}
        kept = [n for n in before if n not in names or not (folders[n] / "results.csv").exists()]
        text = "\n".join(
            before[name] if name in kept else "\n".join(section(name, folder))
            for name, folder in folders.items()
        )
        page.write_text(
            "# Results of the quirk studies\n\nMade by `python -m experiments.quirks results`; "
            "what each study asks is in [README.md](README.md). Where a section does not name its intervals, "
            "brackets are percentile intervals (nominal 95 %, too narrow: see README.md) of the hierarchical "
            "bootstrap over tasks, samples and meta seeds.\n\n" + text + "\n",
            encoding="utf-8",
        )


def sections(page: str) -> dict[str, str]:
    """What results.md says so far, by study: folders are not kept in the repository."""
    parts = page.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: f"## {part.rstrip()}\n" for part in parts}


def section(name: str, folder: Path) -> Iterator[str]:
    """One study as Markdown lines."""
    yield f"## {name}\n"
    if not (folder / "results.csv").exists():
        yield "Not run yet.\n"
        return
    yield f"Brackets are {DEFAULT_INTERVAL} 95 % intervals.\n"
    rows = pd.read_csv(folder / "results.csv")
    if set(rows["method"]) != {"pt"}:
        yield "Gains over plain prompt tuning:\n"
        yield from arg_lines(rows)
    if rows["variant"].nunique() > 1 and name != "protocol":
        yield 'Points against "main", by method:\n'
        yield from contrast_lines(rows)
    for more in FURTHER.get(name, ()):
        yield from more(folder, rows)


def best_and_last(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    """How often the best step is not the last, and how far dev scores lie apart."""
    curves = pd.read_csv(folder / "curves.csv")
    curves = curves[(curves["variant"] == "main") & curves["dev"].notna()].sort_values("step")
    runs = curves.groupby(["method", "run"])["dev"].agg(["max", "last"]).reset_index()
    apart = (runs["max"] - runs["last"]).rename("apart")
    table = runs.assign(worse=apart > 0, far=apart > 0.05).groupby("method")[["worse", "far"]].mean() * 100
    yield "Runs whose last dev score is below their best, and by more than .05 (published: 58 %), in %:\n"
    yield from markdown(table.round(1).reset_index())


def junk(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    """Predictions that are no label, and the score with and without the classes they make."""
    f1 = rows[rows["metric"].str.startswith("Classification-F1")]
    table = f1.groupby(["variant", "method"])[["outside", "gold_f1", "test"]].mean() * 100
    yield "Tasks scored by macro-F1: predictions outside of the label words, F1 over the labels in gold, and"
    yield "the test score under the variant's own rule, all in %:\n"
    yield from markdown(table.round(1).reset_index())


def grid_choice(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    """Which rates are chosen, and how far apart the rates of one cell score on dev."""
    share = rows.groupby("variant")["lr"].value_counts(normalize=True).unstack().mul(100).round(1)
    yield "Learning rates chosen, in % of the cells:\n"
    yield from markdown(share.reset_index())
    runs = pd.read_csv(folder / "runs.csv")
    cell = ["variant", "task", "sample", "seed"]
    spread = runs.groupby(cell)["dev"].agg(np.ptp).groupby("variant").mean().mul(100).round(1)
    yield "Spread of the best dev score over the rates of a cell, mean over cells, in points:\n"
    yield from markdown(spread.rename("spread").reset_index())


def survival(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    """Which conclusions hold under both protocols."""
    from softstart.analysis import arg_table

    table = arg_table(rows).set_index(["variant", "method"])
    signs = table.apply(lambda r: "gain" if r["low"] > 0 else "loss" if r["high"] < 0 else "open", axis=1)
    paper, ours = signs.loc["paper"].drop("pt"), signs.loc["main"].drop("pt")
    lines = [
        {
            "method": m,
            "published protocol": paper[m],
            "corrected protocol": ours[m],
            "same": paper[m] == ours[m],
        }
        for m in paper.index
    ]
    yield "What the 95 % interval of ARG says of each method under either protocol:\n"
    yield from markdown(pd.DataFrame(lines))
    yield "Methods against each other, in points; bold where the interval leaves zero out:\n"
    yield from markdown(pd.DataFrame(pairs(rows)))
    order = table["arg"].unstack("variant").drop("pt")
    rho = order["paper"].rank().corr(order["main"].rank())
    yield f"Rank correlation of ARG under the two protocols: {rho:.2f} over {len(order)} methods.\n"


def pairs(rows: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The difference of every two methods other than plain prompt tuning, under both protocols."""
    from softstart.analysis import arg_table

    names = sorted(set(rows["method"]) - {"pt"})
    against = {name: arg_table(rows, name).set_index(["variant", "method"]) for name in names[:-1]}
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            line = {"": f"{other} - {name}"}
            for variant, title in (("paper", "published protocol"), ("main", "corrected protocol")):
                gain = against[name].loc[(variant, other)]
                text = f"{gain['mean_abs_gain']:+.1f} [{gain['abs_low']:+.1f}, {gain['abs_high']:+.1f}]"
                line[title] = f"**{text}**" if gain["abs_low"] * gain["abs_high"] > 0 else text
            yield line


def angles(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    """The cosines, where they have been computed."""
    if (HERE / "cosines.csv").exists():
        yield "Cosines between meta-gradients (`python -m experiments.quirks cosines`):\n"
        yield from markdown(pd.read_csv(HERE / "cosines.csv"))


def pseudo_gradients(folder: Path, rows: pd.DataFrame) -> Iterator[str]:
    """How far rounding bends Reptile's step, where it has been computed."""
    if (HERE / "cosines-reptile.csv").exists():
        yield "The difference of prompts in float32 against the equal sum of gradients:\n"
        yield from markdown(pd.read_csv(HERE / "cosines-reptile.csv"))


FURTHER: dict[str, tuple[Callable[[Path, pd.DataFrame], Iterator[str]], ...]] = {
    "tested-prompt": (best_and_last,),
    "f1": (junk,),
    "starts": (grid_choice,),
    "protocol": (survival,),
    "inner-rate": (angles,),
    "reptile": (pseudo_gradients,),
}


if __name__ == "__main__":
    main()
