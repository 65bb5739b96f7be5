"""The source and target tasks of the real study, by a seeded rule, and its study files.

    python -m benchmarks.real.tasks path/to/gym        # writes studies/real-*.yaml

The rule looks at categories, label counts, lengths and numbers of test rows, never at a score.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from softstart.gym.catalog import crossfit_catalog
from softstart.gym.sources import open_gym

SEED = 20261127
TARGETS = {
    "nli": 2, "emotion": 2, "fact checking": 1, "hate speech detection": 1, "sentiment analysis": 1,
    "topic": 1, "paraphrase": 1, "other": 1,
}  # fmt: skip
"""How many targets of each kind of classification, 10 in all."""
HELD_OUT = 6
"""Source tasks that rates are chosen on; the starts of the pilot are learned from the others."""
SOURCES = 24
FROM_ONE = 3
"""Most source tasks from one dataset."""
WORDS, TEST_ROWS, LABELS = 60, 200, 6
"""Longest median input of any task; fewest test rows and most labels of a target."""
BROKEN = {"tab_fact"}
"""Its published files have broken rows."""
FAMILIES = ("ethos", "blimp", "lama", "kilt", "tweet_eval-stance")
"""Tasks whose names begin so are parts of one dataset."""
SAME = {"superglue-rte": "glue-rte"}
"""Other names of a dataset."""


@dataclass(frozen=True)
class Candidate:
    """A task of the gym as the rule sees it."""

    name: str
    category: str
    words: float
    labels: int
    test_rows: int

    @property
    def kind(self) -> str:
        """The kind of classification, or the whole category of any other task."""
        top, _, rest = self.category.partition("/")
        return rest if top == "classification" else top

    @property
    def dataset(self) -> str:
        """What tasks of one dataset have in common; no dataset is on both sides."""
        family = next((prefix for prefix in FAMILIES if self.name.startswith(prefix)), self.name)
        return SAME.get(family, family)


def candidates(gym: Path) -> list[Candidate]:
    """Every task of a folder that is short enough, in the order of names."""
    catalog, folder = crossfit_catalog(), open_gym(str(gym))
    found = []
    for name in folder.tasks():
        if name in BROKEN or name not in catalog:
            continue
        task = folder.load(name)
        rows = [row for sample in task.samples.values() for row in sample.train]
        words = statistics.median(len(row.input.split()) for row in rows)
        if words <= WORDS and len(task.samples) == 5:
            found.append(Candidate(name, task.category, words, len(task.labels), len(task.test)))
    return found


def choose(tasks: Sequence[Candidate]) -> dict[str, list[str]]:
    """Targets, held-out sources, and the sources of every setting."""
    rng = random.Random(SEED)
    classes = [t for t in tasks if t.category.startswith("classification")]
    rest = [t for t in tasks if not t.category.startswith("classification")]
    targets: list[Candidate] = []
    for kind, count in TARGETS.items():
        fit = [t for t in classes if t.kind == kind and t.test_rows >= TEST_ROWS and 2 <= t.labels <= LABELS]
        rng.shuffle(fit)
        for task in fit:
            if sum(t.kind == kind for t in targets) < count and task.dataset not in {
                t.dataset for t in targets
            }:
                targets.append(task)
    used = {t.dataset for t in targets}
    cls = _some(rng, [t for t in classes if t.dataset not in used and 2 <= t.labels <= LABELS], SOURCES)
    nocls = _some(rng, [t for t in rest if t.dataset not in used], SOURCES)
    held = [t for t in cls if t.test_rows >= 100][:HELD_OUT]
    return {
        "target": _names(targets),
        "cls": _names(cls),
        "nocls": _names(nocls),
        "both": _names([*cls[: SOURCES // 2], *nocls[: SOURCES // 2]]),
        "held": _names(held),
    }


def _some(rng: random.Random, tasks: list[Candidate], count: int) -> list[Candidate]:
    """Tasks in turn from all kinds, at most ``FROM_ONE`` of a dataset."""
    pools: dict[str, list[Candidate]] = {}
    for task in tasks:
        pools.setdefault(task.kind, []).append(task)
    for pool in pools.values():
        rng.shuffle(pool)
    kinds, chosen = sorted(pools), []
    rng.shuffle(kinds)
    while len(chosen) < count and any(pools.values()):
        for kind in kinds:
            while pools[kind]:
                task = pools[kind].pop()
                if sum(t.dataset == task.dataset for t in chosen) < FROM_ONE:
                    chosen.append(task)
                    break
    return chosen[:count]


def _names(tasks: Iterable[Candidate]) -> list[str]:
    return [task.name for task in tasks]


COMMON: dict[str, Any] = {
    "backbone": "smollm2",
    "dtype": "bfloat16",
    "samples": [13, 21, 42],
    "test_rows": 200,
    "text": {"template": "{input}\nAnswer:", "max_input_tokens": 96, "max_output_tokens": 16},
    "prompt": {"length": 10, "init": "vocabulary", "draw_per": "seed", "placement": "suffix"},
    "evaluation": {"scoring": "rank", "max_tokens": 16384, "decoding": {"max_new_tokens": 16}},
    "pack_size": 60,
}
ADAMW = {"name": "adamw", "weight_decay": 0.0}
ADAPTATION = {"steps": 100, "eval_every": 10, "batch_size": 8, "optimizer": ADAMW, "max_tokens": 4096}
META = {"meta_batch": 4, "optimizer": ADAMW, "inner_lr_unit": "start", "max_tokens": 4096}
EPISODES = {"inner_steps": 4, "support_size": 4, "query_size": 8}
METHODS: dict[str, dict[str, Any]] = {
    "pt": {},
    "multitask": {"query_size": 32},
    "fomaml": EPISODES,
    "maml": EPISODES,
    "reptile": {"inner_steps": 6, "support_size": 8},
}
RATES = [0.003, 0.01, 0.03]
"""Learning rates of adaptation and of the outer loop that the pilot compares."""
INNER = [0.03, 0.3]
"""Inner rates that it compares, in units of the start's entries (root mean square)."""


def pilots(lists: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The studies that rates are chosen by: held-out source tasks stand in for targets.

    The first one is plain prompt tuning for 100 steps (in float32, as it was run), the second one
    learned starts and a plain one for 30.
    """
    learned = [name for name in lists["cls"] if name not in lists["held"]]
    common = {
        **COMMON,
        "samples": [13],
        "source_samples": [13, 21, 42, 87, 100],
        "setting": {"name": "held-out", "source": learned, "target": lists["held"]},
        "test_rows": 8,
    }
    methods: dict[str, Any] = {"pt": {}}
    for lr in RATES:
        methods[f"multitask-{lr}"] = {"algorithm": "multitask", **METHODS["multitask"], "lr": lr}
        for name in ("fomaml", "maml", "reptile"):
            for inner in INNER:
                how = {"algorithm": name, **METHODS[name], "inner_lr": inner, "lr": lr}
                methods[f"{name}-{inner}-{lr}"] = how
    starts = {"meta_seeds": [41], "meta": {**META, "gradients": 1500, "lr": RATES[1]}}
    return [
        {
            "name": "real-rates-plain", **common, "dtype": "float32",
            "methods": {"pt": {}}, "learning_rates": RATES,
            "adaptation": {**ADAPTATION, "budgets": [30, 100]},
        },
        {
            "name": "real-rates", **common, **starts, "methods": methods, "learning_rates": RATES[1:2],
            "adaptation": {**ADAPTATION, "steps": 30, "budgets": [30]},
        },
    ]  # fmt: skip


def study(setting: str, sources: list[str], targets: list[str]) -> dict[str, Any]:
    """A setting of the real study; ``benchmarks.real.rates`` fills in the rates that the pilot chose."""
    return {
        "name": f"real-{setting}",
        **COMMON,
        "setting": {"name": setting, "source": sources, "target": targets},
        "meta_seeds": [42, 43],
        "meta": {**META, "gradients": 12000, "lr": RATES[1]},
        "methods": METHODS,
        "learning_rates": RATES[1:2],
        "adaptation": {**ADAPTATION, "budgets": [10, 30, 100]},
    }


def baselines(targets: list[str]) -> dict[str, Any]:
    """What costs no training of a prompt, on the same targets, samples and test rows."""
    return {
        "name": "real-baselines",
        **COMMON,
        "setting": {"name": "baselines", "target": targets},
        "baseline_seeds": [42],
        "methods": {"zero_shot": {}, "in_context": {"demonstrations": 8, "draws": 1}, "features": {}},
        "learning_rates": RATES[1:2],
        "adaptation": {**ADAPTATION, "budgets": [10, 30, 100]},
    }


def write(gym: Path, out: Path) -> None:
    """Write the study files."""
    lists = choose(candidates(gym))
    studies = [
        *pilots(lists),
        study("cls2cls", lists["cls"], lists["target"]),
        study("nocls2cls", lists["nocls"], lists["target"]),
        study("both2cls", lists["both"], lists["target"]),
        baselines(lists["target"]),
    ]
    for declared in studies:
        head = f"# Written by: python -m benchmarks.real.tasks (seed {SEED}); see benchmarks/real/README.md\n"
        plain = json.loads(json.dumps(declared))  # YAML would refer to values that are shared
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=110)
        (out / f"{declared['name']}.yaml").write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(__file__).resolve().parents[2] / "studies")
