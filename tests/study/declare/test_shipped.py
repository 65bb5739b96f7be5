"""Every shipped study can be planned, and runs in small."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
import torch
import yaml

from helpers import toy_study
from helpers.declared import SIX
from helpers.families import random_backbone
from helpers.models import random_t5
from helpers.paths import ROOT
from softstart.prompt import SoftPrompt
from softstart.study import load_study, parse_study, run_study
from softstart.study.cost.estimate import nominal_inputs
from softstart.study.declare.presets import merged
from softstart.study.declare.spec import resolve_methods
from softstart.study.plan.plan import make_plan

STUDIES = [*sorted((ROOT / "studies").glob("*.yaml")), ROOT / "src/softstart/study/demo.yaml"]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_shipped_study_can_be_planned(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # settings that share data say so
        declared = load_study(file)
        plan = make_plan(declared, nominal_inputs(declared))
    assert plan.cells
    assert all(node.method.meta.steps > 0 for node in plan.metas)
    assert declared.name == file.stem or file.stem == "demo"


@pytest.mark.parametrize("path", STUDIES[:-1], ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:setting")
def test_a_plan_shares_the_baselines_of_settings(path):
    study = load_study(path)
    plan = make_plan(study, nominal_inputs(study))
    tasks = {(cell.part.setting, cell.task) for cell in plan.cells if cell.part.variant == "main"}
    methods = resolve_methods(study)
    learned = [method for method in methods if method.algorithm]
    plain = [method for method in methods if method.kind == "pt"]
    main = [cell for cell in plan.cells if cell.part.variant == "main"]
    seeds, samples = len(study.meta_seeds), len(study.samples)
    assert len(main) == len(tasks) * len(study.methods) * samples * seeds
    targets = {task for _, task in tasks}
    rates = len(study.learning_rates)
    baseline = samples * len(study.baseline_seeds or study.meta_seeds)
    runs = {run.key: run for cell in main for run in cell.runs}.values()
    # Baselines once a task, however many settings it is in; learned starts once a setting.
    assert sum(run.method.kind == "pt" for run in runs) == len(targets) * baseline * rates * len(plain)
    assert sum(run.start is not None for run in runs) == len(tasks) * samples * seeds * rates * len(learned)


@pytest.mark.filterwarnings("ignore:setting")
def test_the_papers_main_table_shares_what_its_settings_share():
    study = load_study(ROOT / "studies" / "paper-main.yaml")
    plan = make_plan(study, nominal_inputs(study))
    # Eleven settings, but cls2cls and cls2nocls (and so on) learn from the same sources.
    assert len(plan.metas) == 8 * 4
    assert 10_000 < len(list(plan.runs)) < 20_000


TOYS = {"name": "toy", "source": ["toy-a", "toy-b"], "target": ["toy-c", "toy-d"]}


SMALL = {
    "steps": 2, "epochs": 0.05, "examples": 16, "gradients": 16, "meta_batch": 2, "eval_every": 1,
    "batch_size": 4, "batch_parts": 1, "max_new_tokens": 2, "num_beams": 2, "frequent": "tokenizer",
    "init": "vocabulary", "length": 3, "source_tasks": 1, "test_rows": 4, "meta_seeds": [42],
    "baseline_seeds": [42], "samples": [13], "source_samples": [13, 21], "budgets": [1, 2], "rungs": [1],
    "setting": TOYS,
}  # fmt: skip
"""What a shipped study is cut down to, wherever it names the key."""


def shrunk(value, key=None):
    name = str(key).rpartition(".")[2]
    if name in SMALL and not (name == "epochs" and isinstance(value, int) and value >= 300):
        return SMALL[name]
    if isinstance(value, dict):
        return {k: shrunk(v, k) for k, v in value.items() if k != "max_epochs"}
    if name in ("learning_rates", "finetuning_learning_rates"):
        return value[:2]
    return value


@pytest.fixture(scope="session")
def shots(world, tmp_path_factory):
    """The toy gym at 16, 32, 64 and 128 shots."""
    root = tmp_path_factory.mktemp("shots")
    for folder in (world / "gym").iterdir():
        (root / folder.name).mkdir()
        for file in folder.iterdir():
            for k in (16, 32, 64, 128) if "_4_" in file.name else (0,):
                name = file.name.replace("_4_", f"_{k}_")
                (root / folder.name / name).write_bytes(file.read_bytes())
    return root


KINDS = {"paper-bart": "bart", "paper-gpt2": "gpt2", "kinds-smollm2": "llama"}
"""Studies that are run on a small model of their own family; the others on a small T5."""


@pytest.fixture
def backbone_of(world, tmp_path):
    """The folder of a study's backbone, by the study's name."""

    def saved(name):
        if name not in KINDS:
            return str(world / "model")
        made = random_backbone(KINDS[name], torch.float32)
        for part in (made.model, made.tokenizer):
            part.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return saved


@pytest.mark.parametrize("file", STUDIES[:-1], ids=lambda file: file.stem)
def test_a_small_version_of_every_shipped_study_runs(file, backbone_of, shots, tmp_path):
    declared = yaml.safe_load(file.read_text())
    sizes = {
        "meta": {"steps": 2, "meta_batch": 2}, "prompt": {"length": 3}, "test_rows": 4, "samples": [13],
        "source_samples": [13, 21], "meta_seeds": [42],
        "learning_rates": declared.get("learning_rates", [0.5]),
        "adaptation": {"steps": 2, "eval_every": 1, "batch_size": 4, "batch_parts": 1},
        "finetuning": {"steps": 2, "eval_every": 1, "batch_size": 4, "batch_parts": 1},
        "evaluation": {"decoding": {"max_new_tokens": 2, "num_beams": 1}},
    }  # fmt: skip
    small = {**merged(sizes, shrunk(declared)), "gym": str(shots), "backbone": backbone_of(file.stem)}
    small |= {"setting": TOYS, "shots": 16, "finetuning_backbone": None}
    small.pop("settings", None)
    if declared.get("preset") == "paper":
        small["prompt"] = {**small["prompt"], "frequent": "tokenizer"}
        small.setdefault("methods", {name: {} for name in SIX})
        for name, own in small["methods"].items():
            small["methods"][name] = {"steps": 2} if name not in ("pt", "ft") and not own else own
    outcome = run_study(parse_study(yaml.safe_dump(small, sort_keys=False), file.name), tmp_path / "out")
    assert not outcome.failures
    assert outcome.missing == 0
    variants = {"main", *declared.get("variants", {})}
    assert set(outcome.rows["variant"]) == variants
    assert outcome.rows["test"].notna().all()


SHRUNK = {
    "meta": {"steps": 2, "meta_batch": 2, "lr": 0.3},
    "adaptation": {"steps": 2, "eval_every": 2, "batch_size": 4},
    "finetuning": {"steps": 2, "eval_every": 2, "batch_size": 4},
    "samples": [13, 21],
    "learning_rates": [0.5],
    "finetuning_learning_rates": [0.01],
    "text": {"template": "{input}"},
    "prompt": {"length": 3},
}


def test_the_paper_preset_runs_with_other_weights_to_fine_tune(world, tmp_path):
    other = random_t5(torch.float32, seed=9)
    other.model.save_pretrained(tmp_path / "weights")
    other.tokenizer.save_pretrained(tmp_path / "weights")
    changes = {
        **SHRUNK, "preset": "paper", "samples": [13],
        "prompt": {"length": 3, "frequent": "tokenizer", "placement": "after_padding"}, "pack_size": 1,
        "test_rows": {"toy-c": 5},
        "evaluation": {"decoding": {"num_beams": 1, "max_new_tokens": 3}},
        "methods": {"pt": {}, "ft": {}, "maml": {}},
    }  # fmt: skip
    tables = {}
    for name, weights in (("same", None), ("other", str(tmp_path / "weights"))):
        declared = toy_study.toy(world, **changes, finetuning_backbone=weights)
        outcome = run_study(declared, tmp_path / name)
        assert not outcome.failures
        tables[name] = pd.read_csv(tmp_path / name / "curves.csv").set_index(["method", "task", "sample"])[
            "loss"
        ]
    assert (tmp_path / "same" / "study.yaml").read_text().count("preset: paper") == 1
    same, other = tables["same"], tables["other"]
    assert same["pt"].dropna().tolist() == other["pt"].dropna().tolist()
    assert same["ft"].dropna().tolist() != other["ft"].dropna().tolist()
    prompts = [SoftPrompt.load(f) for f in (tmp_path / "same" / "prompts").iterdir()]
    assert {prompt.placement for prompt in prompts} == {"after_padding"}
    assert {prompt.info["template"] for prompt in prompts} == {declared.text.template}
