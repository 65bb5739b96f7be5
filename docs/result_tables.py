"""Tables of the pages that are made from result files; ``page_numbers.py`` writes them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import result_files as files

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
HEAD = ("question", "command", "cost", "last run")
"""What the table at the head of every benchmark's README says."""

GPU = BENCHMARKS / "gpu" / "results.json"
COST = BENCHMARKS / "cost" / "results.json"
PAIR = ROOT / "experiments" / "quirks" / "protocol-pair.csv"
MINI = ROOT / "experiments" / "tiny" / "results.md"
MINI_SETTINGS = (
    "mini-random", "mini-cls2cls", "mini-both2cls", "mini-nocls2cls",
    "mini-qa2qa", "mini-noqa2qa", "mini-nonpara2para",
)  # fmt: skip
DEMO = BENCHMARKS / "demo" / "table.txt"
PEAK = 989e12
"""FLOP/s of dense bfloat16 products on an H200, by NVIDIA's data sheet."""
SCORINGS = BENCHMARKS / "scorings" / "README.md"
ENGINE = BENCHMARKS / "engine" / "results.md"


def rows_of(cells: Iterable[Sequence[str]]) -> str:
    """Lines of a Markdown table; the first row is its head."""
    first, *rest = cells
    return "\n".join(f"| {' | '.join(row)} |" for row in [first, ["---"] * len(first), *rest])


def head_of(readme: str) -> dict[str, str]:
    """The table at the head of a README: what it answers, how, at what cost, when it was last run."""
    _, rows = next(files.tables(readme))
    return {row[0]: row[1] for row in rows[1:]}


def benchmarks() -> str:
    """All benchmarks with their question, command, cost and last run."""

    def lines() -> Iterator[list[str]]:
        yield [*HEAD, "results"]
        for readme in sorted(BENCHMARKS.glob("*/README.md")):
            head, name = head_of(readme.read_text(encoding="utf-8")), readme.parent.name
            yield [*(head[key] for key in HEAD), f"[{name}](../benchmarks/{name}/README.md)"]

    return rows_of(lines())


def gpu_loops() -> str:
    """Loops of one run against a pack of 16 on a GPU, as times of the pack's, with their ranges."""
    names = {
        "pack": "the pack, not compiled",
        "pack, float32": "the pack in float32, not compiled",
        "one run": "one run at a time by Softstart",
        "paper's loop, float32": "the paper's loop, float32 as it ran",
        "paper's loop, bfloat16": "the paper's loop, bfloat16",
        "PEFT, float32": "PEFT in a plain loop, float32",
        "PEFT, bfloat16": "PEFT in a plain loop, bfloat16",
    }
    peers = json.loads(GPU.read_text(encoding="utf-8"))["peers"]
    mixes = {"equal lengths": "equal lengths", "ragged lengths": "lengths as in the gym"}

    def cell(mix: str, name: str) -> str:
        row = peers[f"large R=16, {mix}"][name]
        digits = 2 if row["times"] < 5 else 1
        times, least, most = (f"{row[key]:.{digits}f}" for key in ("times", "least", "most"))
        return f"**{times} [{least}–{most}]**" if "as it ran" in names[name] else f"{times} [{least}–{most}]"

    head = ["compared with a pack of 16 in bfloat16, compiled", *mixes.values()]
    return rows_of([head, *([names[name], *(cell(mix, name) for mix in mixes)] for name in names)])


def cost() -> str:
    """The paper's studies: counts, FLOPs, and hours of one H200 at its peak, as measured and as assumed."""
    counts = json.loads(COST.read_text(encoding="utf-8"))
    gpu = json.loads(GPU.read_text(encoding="utf-8"))
    rates = {
        "base": gpu["scaling"]["model base"]["flops"],
        "large": gpu["packs"]["large R=64, compiled"]["flops"],
        "xl": gpu["scaling"]["model xl"]["flops"],
    }
    three, six = ("main", "ablations", "base"), ("main", "ablations", "base", "bart", "gpt2", "xl")
    shapes = {"main": "large", "ablations": "large", "base": "base", "xl": "xl"}
    names = {"base": ", T5-base", "bart": ", BART-large", "gpt2": ", GPT-2 large", "xl": ", T5-XL"}
    kinds = ("meta-trainings", "adaptations", "fine-tunings")

    def line(title: str, studies: Sequence[str], fast: str = "", bold: bool = False) -> list[str]:
        rows = [counts[f"paper-{study}{fast}"] for study in studies]
        flops = sum(row["flops"] for row in rows)
        floor = flops / PEAK / 3600
        known = all(study in shapes for study in studies)
        measured = (
            sum(row["flops"] / rates[shapes[study]] / 3600 for study, row in zip(studies, rows, strict=True))
            if known
            else math.nan
        )
        hours = [floor, measured, floor / 0.5, floor / 0.3]
        shown = [f"{h:.1f} h" if h < 9.95 else f"{h:,.0f} h" if h == h else "" for h in hours]
        planned = [f"{sum(row[kind] for row in rows):,}" for kind in kinds]
        if title == names_of("main"):
            planned = [f"{number} {kind}" for number, kind in zip(planned, kinds, strict=True)]
        work = [f"{sum(row['rows'] for row in rows):.2e}", f"{flops:.2e}"]
        cells = [*(number.replace("e+", "e").replace("e0", "e") for number in work), *shown]
        return [
            title,
            ", ".join(planned),
            *(f"**{cell}**" if bold and "h" in cell else cell for cell in cells),
        ]

    def names_of(study: str) -> str:
        return f"`studies/paper-{study}.yaml`{names.get(study, '')}"

    head = ["in bfloat16", "planned", "rows forward and backward", "FLOPs"]
    lines = [
        [*head, "H200, floor", "as measured", "at 50 %", "at 30 %"],
        *(line(names_of(study), [study]) for study in three),
        line("**these three**", three, bold=True),
        *(line(names_of(study), [study]) for study in six[3:]),
        line("**all six**", six, bold=True),
        *(line(f"`paper-{study}` with `preset: fast`", [study], ", fast") for study in three),
    ]
    return rows_of(lines)


def demo() -> str:
    """What ``softstart demo`` prints, as it is."""
    return f"```\n{DEMO.read_text(encoding='utf-8').rstrip()}\n```"


def engine_bars() -> str:
    """The engine's bars at base shape, by pack size and mix of lengths."""
    text = ENGINE.read_text(encoding="utf-8")
    cases = [(runs, mix) for runs in (1, 4, 16, 64) for mix in ("ragged", "equal")]
    ours, peft, trainer, half = "softstart", "PEFT, plain loop", "PEFT, HF Trainer", "softstart, bfloat16"

    def read(case: tuple[int, str], who: str, column: str = "the first row is faster by [min–max]") -> float:
        heading = f"(26 November 2026) > Adaptation, base, {case[0]} runs of batch 8, {case[1]} lengths"
        try:
            return files.numbers(files.cell(text, [heading, who, column]))[0]
        except files.NumbersError:
            return float("nan")

    def ratio(case: tuple[int, str], slow: str, fast: str) -> float:
        return read(case, slow, "ms a unit") / read(case, fast, "ms a unit")

    def share(case: tuple[int, str], who: str) -> float:
        return read(case, who, "of the product's speed")

    def shown(number: float, digits: int = 2, bar: float = 0) -> str:
        text = re.sub("^0", "", f"{number:.{digits}f}") if number == number else ""
        return f"**{text}**" if text and number < bar else text

    def best(case: tuple[int, str]) -> float:
        peers = ("transformers loop", peft, trainer)
        return min(t for t in (read(case, who) for who in peers) if t == t)

    rows = [
        ["best sequential peer, float32", "at least .98", *(shown(best(c)) for c in cases)],
        ["PEFT's plain loop, float32", "at least 1.3 (ragged)", *(shown(read(c, peft)) for c in cases)],
        [
            "ours in bfloat16, PEFT's in float32",
            "at least 2 (ragged)",
            *(shown(ratio(c, peft, half), 1) for c in cases),
        ],
        [
            "PEFT's plain loop, both in bfloat16",
            "",
            *(shown(ratio(c, f"{peft}, bfloat16", half)) for c in cases),
        ],
        ["HF Trainer, float32", "at least 1.4", *(shown(read(c, trainer)) for c in cases)],
        ["share of the float32 product", "at least .75", *(shown(share(c, ours), bar=0.75) for c in cases)],
        ["the same, compiled layers", "", *(shown(share(c, f"{ours}, compiled"), bar=0.75) for c in cases)],
        ["PEFT's share, for comparison", "", *(shown(share(c, peft)) for c in cases)],
    ]
    return rows_of([["bar", "wanted", *(f"{runs}, {mix}" for runs, mix in cases)], *rows])


def causal_bars() -> str:
    """The bars of causal models on real rows, by the length of prompts and the size of packs."""
    text = ENGINE.read_text(encoding="utf-8")
    peft, once, kept = "PEFT, plain loop", "prefix, prompts read once", "suffix, texts read once"
    ours = "Causal models, an AMD processor with bfloat16 products (27 November 2026)"
    cases = {
        **{
            f"P = {p}, {runs} {'run' if runs == 1 else 'runs'}": f"real rows, P = {p}, {runs} runs"
            for p, runs in ((20, 1), (20, 4), (20, 16), (100, 1), (100, 4), (100, 16))
        },
        "long texts, P = 20, 1 run": "real rows of long texts, P = 20, 1 runs",
    }

    def read(case: str, who: str) -> float:
        heading = f"{ours} > Causal, {case} of 8"
        return float(files.numbers(files.cell(text, [heading, who, "ms a unit"]))[0])

    def row(name: str, slow: str, fast: str, bars: Sequence[float | None]) -> list[str]:
        ratios = [read(case, slow) / read(case, fast) for case in cases.values()]
        wanted = [f" ({bar})" if bar else "" for bar in bars]
        cells = [
            f"**{ratio:.1f}**{want}" if bar and ratio < bar else f"{ratio:.1f}{want}"
            for ratio, bar, want in zip(ratios, bars, wanted, strict=True)
        ]
        return [name, *cells]

    half = "bfloat16"
    rows = [
        row("PEFT's plain loop / suffix, texts read once", peft, kept, (5, 5, 5, 2.2, 2.2, 2.2, 10)),
        row(
            "PEFT's plain loop / prefix, prompts read once", peft, once, (2.2, 2.2, 2.2, 3.5, 3.5, 3.5, None)
        ),
        row("HF Trainer / suffix", "PEFT, HF Trainer", kept, (None,) * 7),
        row("suffix in float32 / in bfloat16", kept, f"suffix, {half}", (1.5,) * 7),
        row("prefix in float32 / in bfloat16", once, f"prefix, {half}", (1.5,) * 7),
        row("PEFT in bfloat16 / suffix in bfloat16", f"{peft}, {half}", f"suffix, {half}", (None,) * 7),
    ]
    return rows_of([["time of / time of (wanted at least)", *cases], *rows])


def protocol_pair() -> str:
    """Multi-task learning against first-order MAML, task by task in points, under two protocols."""
    import pandas as pd

    from softstart.analysis.permutation import seeds_t_p, sign_flip_p

    scores = pd.read_csv(PAIR).groupby(["task", "variant", "method"])["test"].mean().mul(100).unstack()
    apart = (scores["multitask"] - scores["fomaml"]).unstack("variant")
    columns = {
        "published protocol": apart["paper"],
        "corrected protocol": apart["main"],
        "difference of both": apart["paper"] - apart["main"],
    }
    body = [[task, *(_points(of[task]) for of in columns.values())] for task in apart.index]
    means, tests = [], []
    for of in columns.values():
        means.append(f"**{_t_interval(of.to_list())}**")
        runs = of.rename("difference_points").reset_index().assign(sample=1, seed=1)
        tests.append(f"{sign_flip_p(of.to_numpy()):.4f} / {seeds_t_p(runs):.3f}")
    head = ["multi-task − FoMAML, points", *columns]
    return rows_of(
        [head, *body, ["mean [t interval over tasks]", *means], ["p, sign flips / t test", *tests]]
    )


def baselines() -> str:
    """Scores of baselines and learned starts at every budget, with gains over plain prompt tuning."""
    import pandas as pd

    rows = ROOT / "experiments" / "baselines" / "rows" / "mini-baselines.csv"
    return "\n".join(_experiment("baselines").table(pd.read_csv(rows)))


def precision() -> str:
    """Scores of the real study's plain starts in two precisions."""
    made = _experiment("precision")
    return "\n".join(made.table(made.compared()))


def _experiment(name: str) -> Any:
    file = ROOT / "experiments" / name / "__main__.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    spec.loader.exec_module(made := importlib.util.module_from_spec(spec))
    return made


def real_cls2cls() -> str:
    """The declared analysis of the real study's first setting."""
    return _real("cls2cls")


def real_nocls2cls() -> str:
    """The same of its second setting."""
    return _real("nocls2cls")


def real_both2cls() -> str:
    """The same of its third setting."""
    return _real("both2cls")


def real_across() -> str:
    """All settings of the real study together."""
    return "\n".join(_of_real("across").tables())


def real_baselines() -> str:
    """What trains no prompt beside plain starts of the real study."""
    return "\n".join(_of_real("baselines").table())


def real_similarity() -> str:
    """Similarity of sources and targets against gains of the real study."""
    module = _of_real("similarity")
    return "\n".join(module.tables(module.read_similarity()))


def start_smollm2() -> str:
    """What the shipped starts of SmolLM2 gained."""
    findings = _of_real("findings")
    results, _ = findings.read("start-smollm2")
    return "\n".join(findings.gains_table(results))


def _real(setting: str) -> str:
    findings = _of_real("findings")
    _, *tables = findings.report(*findings.read(f"real-{setting}"))
    return "\n".join(tables)


def _of_real(module: str) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(f"benchmarks.real.{module}")


def mini_ends() -> str:
    """Gains of mini-main after 200 steps in points, with t intervals over the means of target tasks."""
    text = MINI.read_text(encoding="utf-8")
    methods = ("FT", "Multi-task", "MAML", "FoMAML", "Reptile")
    lines = [["setting (targets)", *methods]]
    for setting in MINI_SETTINGS:
        head, *scores = _scores_by_task(text, setting)
        gains = {
            method: [files.numbers(row[head.index(method)])[0] - files.numbers(row[1])[0] for row in scores]
            for method in methods
        }
        lines.append([f"{setting} ({len(scores)})", *map(_t_interval, gains.values())])
    return rows_of(lines)


def _scores_by_task(report: str, setting: str) -> list[list[str]]:
    """The table of test scores of a setting in a report that was written as Markdown."""
    of_setting = report.partition("## Test scores by task")[2].partition(f"<summary>{setting} ·")[2]
    return next(files.tables(of_setting))[1]


def mini_budgets() -> str:
    """Gains of mini-main by the steps of adaptation in points, with the corrected p of the sign-flip test."""
    text = MINI.read_text(encoding="utf-8")
    budgets = [f"{steps} steps" for steps in (10, 30, 60)]
    lines = [["setting", "method", *budgets]]
    for setting in MINI_SETTINGS:
        for method in ("Multi-task", "MAML"):
            at = [[f"Gain against the steps > {setting}", method, budget] for budget in budgets]
            gains = [files.numbers(files.cell(text, [*row, "gain, points"]))[0] for row in at]
            ps = [files.cell(text, [*row, "p (Holm)"]) for row in at]
            lines.append(
                [setting, method, *(f"{_points(gain)} ({p})" for gain, p in zip(gains, ps, strict=True))]
            )
    return rows_of(lines)


def _t_interval(values: Sequence[float]) -> str:
    """A mean over tasks with its 95 % t interval, which there is from four tasks on, as in reports."""
    from softstart.analysis.resampling import FEWEST_TASKS
    from softstart.analysis.student import t_test

    if len(values) < FEWEST_TASKS:
        return _points(statistics.mean(values))
    mean, reach, _ = t_test(values)
    return f"{_points(mean)} [{_points(mean - reach)}, {_points(mean + reach)}]"


def scorings() -> str:
    """Mean scores of the ways to make predictions, before and after tuning."""
    text = SCORINGS.read_text(encoding="utf-8")
    cases = {
        ("of 2 tokens", "none"): "Labels as they are, no prompt:",
        ("of 2 tokens", "tuned for 60 steps"): "Labels as they are, prompts tuned",
        ("of 2 and of 5 tokens", "none"): "Labels every second one longer, no prompt:",
        ("of 2 and of 5 tokens", "tuned for 60 steps"): "Labels every second one longer, prompts tuned",
    }
    lines = [["labels", "prompt"]]
    for case, begins in cases.items():
        _, (head, *_, means) = next(files.tables(text.partition(begins)[2]))
        lines[0][2:] = [f"`{name}`" for name in head[2:]]
        lines.append([*case, *means[2:]])
    return rows_of(lines)


def _points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def claims() -> str:
    """Every sentence with numbers of the pages, the files they are from, and the commands that made those."""
    import yaml

    declared = yaml.safe_load((ROOT / "docs" / "page_numbers.yaml").read_text(encoding="utf-8"))
    lines = [["page", "claim", "from", "made by"]]
    for page, sentences in declared["sentences"].items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for sentence in sentences:
            parts = re.split(r"\{([\w.-]+)\}", sentence.strip())
            sources = list(dict.fromkeys(declared["values"][name]["file"] for name in parts[1::2]))
            pattern = f"({files.NUMBER})".join(r"\s+".join(map(re.escape, p.split(" "))) for p in parts[::2])
            found = re.search(pattern, text)
            said = " ".join(found[0].split()) if found else sentence
            said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", said).replace("|", "&#124;")
            made = list(dict.fromkeys(command_of(source) for source in sources))
            links = ", ".join(f"[{source}](../{source})" for source in sources)
            link = page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"
            lines.append([f"[{page}]({link})", f"… {said} …", links, "; ".join(made)])
    return rows_of(lines)


def command_of(file: str) -> str:
    """The command that a folder's README says makes its results."""
    readme = (ROOT / file).parent / "README.md"
    return head_of(readme.read_text(encoding="utf-8")).get("command", "").replace("|", "&#124;")
