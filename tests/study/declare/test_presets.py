"""Presets, the published protocol they hold to, budgets of equal work, and every shipped study."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings

import pandas as pd
import pytest
import torch
import yaml

from helpers import toy_study
from helpers.families import random_backbone
from helpers.models import random_t5, toy_task
from helpers.paths import ROOT
from helpers.shared import SHARED
from softstart.algorithms import MAML, FoMAML, MultiTask, Reptile
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.study import load_study, parse_study, run_study
from softstart.study.cost.estimate import nominal_inputs
from softstart.study.declare.presets import PRESETS, merged
from softstart.study.declare.spec import resolve_methods
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.choice import choose
from softstart.study.plan.departures import protocol
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.plan import make_plan
from softstart.training.budgets import MetaBudget
from softstart.training.configs import AdaptConfig, PromptSpec
from softstart.training.starts import c4_tokens, draw_start, published_tokens

STUDIES = [*sorted((ROOT / "studies").glob("*.yaml")), ROOT / "src/softstart/study/demo.yaml"]
SIX = {name: {} for name in ("pt", "ft", "multitask", "maml", "fomaml", "reptile")}
SETTING = {"name": "x", "source": ["s1", "s2"], "target": ["t1", "t2"]}


def study(**changes):
    declared = {"name": "unit", "setting": SETTING, "methods": SIX, **changes}
    return parse_study(yaml.safe_dump(declared, sort_keys=False), "study.yaml")


def method(of, name):
    return next(m for m in resolve_methods(of) if m.name == name)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_defaults_and_the_resolved_study_says_both(name):
    plain = study(preset=name)
    again = parse_study(yaml.safe_dump(plain.model_dump(mode="json")), "study.yaml")
    assert again == plain
    assert plain.preset == name
    changed = study(
        preset=name, prompt={"length": 7}, meta={"steps": 3}, methods={"pt": {}, "fomaml": {"inner_lr": 0.5}}
    )
    assert changed.prompt == plain.prompt.model_copy(update={"length": 7})
    assert list(changed.methods) == ["pt", "fomaml"]
    fomaml = method(changed, "fomaml")
    assert (fomaml.algorithm.inner_lr, fomaml.meta.steps, fomaml.meta.limit) == (0.5, 3, "steps")
    assert fomaml.algorithm.query_size == method(plain, "fomaml").algorithm.query_size
    assert changed.adaptation == plain.adaptation
    bare = parse_study(yaml.safe_dump({"name": "x", "preset": name, "setting": SETTING}), "study.yaml")
    assert "pt" in bare.methods


def test_a_variant_takes_a_preset_under_its_own_keys():
    base = study(
        preset="corrected",
        backbone="here",
        variants={"paper": {"preset": "paper", "adaptation.steps": 9, "meta.steps": 4}},
    )
    paper = variants_of(base)["paper"]
    assert (paper.preset, paper.backbone, paper.adaptation.steps) == ("paper", "here", 9)
    assert (paper.adaptation.select, base.adaptation.select) == ("last", "best")
    assert (paper.evaluation.f1_labels, base.evaluation.f1_labels) == ("union", "gold")
    assert method(paper, "maml").meta.limit == "steps"
    assert method(paper, "maml").meta.steps == 4
    assert method(paper, "multitask").meta.limit == "epochs"  # what it says of a method, it says for good
    # Nothing of the other preset is left.
    alone = study(preset="paper", backbone="here", adaptation={"steps": 9}, meta={"steps": 4})
    assert paper == alone.model_copy(update={"samples": base.samples})
    renamed = study(
        preset="corrected", methods={"pt": {}, "far": {"algorithm": "maml", "inner_lr": 9.0}},
        variants={"paper": {"preset": "paper"}},
    )  # fmt: skip
    assert method(variants_of(renamed)["paper"], "far").algorithm.inner_lr == 3e-5


def test_another_backbone_brings_its_own_weights_to_fine_tune():
    assert study(preset="paper").finetuning_backbone == "google/t5-v1_1-large"
    assert study(preset="paper", backbone="mine").finetuning_backbone is None
    assert study(preset="paper", backbone="a", finetuning_backbone="b").finetuning_backbone == "b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "papper"}, "preset: unknown preset 'papper'. Did you mean paper"),
        ({"meta": {"examples": 3, "gradients": 4}}, "examples and gradients both say how long"),
        ({"methods": {"maml": {"epochs": -1}}}, "methods.maml: epochs must be greater than 0"),
        ({"methods": {"maml": {"reduction": "median"}}}, "reduction: Input should be 'mean' or 'sum'"),
        ({"methods": {"maml": {"inner_lr": "big"}}}, "inner_lr: Input should be a valid number"),
        ({"methods": {"maml": {"dropout": 1}}}, "dropout: Input should be a valid boolean"),
        ({"prompt": {"placement": "after_padding"}}, "after_padding needs pack_size: 1"),
        ({"adaptation": {"batch_parts": 3}}, "AdaptConfig.batch_parts must divide its batch_size"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(SoftstartError, match=message):
        study(**changes)


def facts(names, rows=0, hvp=2.1):
    tasks = {name: TaskFacts(name, "ACC", 16) for name in names}
    return Inputs("b", 8, (Part("main", "x", ("s1", "s2"), ("t1", "t2"), tasks, ("s1", "s2"), rows, hvp),))


def test_budgets_become_the_steps_of_equal_work():
    maml, fomaml = MAML(support_size=4, query_size=4), FoMAML()
    reptile, mixture = Reptile(inner_steps=10), MultiTask(query_size=16)
    sizes = (45, 225, 56_009, 2.5)

    def steps(algorithm, **budget):
        return MetaBudget(meta_batch=2, **budget).resolved(algorithm, *sizes).steps

    work = {"multitask": 16, "maml": 2 * (4 * 2.5 + 4), "fomaml": 2 * (4 + 4), "reptile": 2 * 10 * 4}
    for algorithm, name in ((mixture, "multitask"), (maml, "maml"), (fomaml, "fomaml"), (reptile, "reptile")):
        assert abs(steps(algorithm, gradients=100_000) * work[name] - 100_000) <= work[name] / 2
    rows = {16: mixture, 2 * 8: maml, 2 * 40: reptile}
    assert {n * steps(algorithm, examples=8000) for n, algorithm in rows.items()} == {8000}
    # What the logs show: 280,060 updates of multi-task learning in cls2cls, 3,600 steps of 12 source tasks.
    assert steps(MultiTask(), epochs=20) == 280_060
    assert MetaBudget(max_epochs=120).resolved(MAML(), 12, 60, 0, 2.1).steps == 3600
    assert MetaBudget(max_epochs=120).resolved(MAML(), *sizes).steps == 5000


def test_a_budget_in_gradients_follows_the_flops_of_the_data(world):
    shared = {"meta": {"gradients": 500, "meta_batch": 2}, "methods": {"pt": {}, "multitask": {}, "maml": {}}}
    from softstart.study.run.resources import Resources

    declared = toy_study.toy(world, **shared)
    resources = Resources(variants_of(declared))
    inputs = resources.inputs()
    (part,) = inputs.parts
    backbone, hvp, gradient = resources.backbone("main"), 0.0, 0.0
    for name in part.source:
        task = resources.task("main", name)
        for sample in (task.samples[13], task.samples[21]):
            for row in (*sample.train, *sample.dev):
                flops = backbone.row_flops(4 + len(row.input.split()), len(row.outputs[0].split()))
                hvp, gradient = hvp + flops.hvp, gradient + flops.gradient
    assert part.hvp_cost == pytest.approx(hvp / gradient, rel=1e-9)
    assert 2 < part.hvp_cost < 3
    assert part.source_rows == 2 * 2 * 16
    steps = {node.method.name: node.method.meta.steps for node in make_plan(declared, inputs).metas}
    assert steps == {"multitask": 125, "maml": round(500 / (2 * (2 * part.hvp_cost + 2)))}
    # Where a plan resolves to the same steps, it is the same work.
    plain = {"methods": {"multitask": {"steps": 125}, "maml": {"steps": steps["maml"]}}, "meta": {}}
    again = make_plan(toy_study.toy(world, **plain), inputs)
    assert [n.key for n in again.metas] == [n.key for n in make_plan(declared, inputs).metas]


def test_options_added_later_leave_the_keys_of_old_results():
    demo = load_study(ROOT / "src/softstart/study/demo.yaml")
    # As it was then.
    second = {"inner_lr": 3.0, "inner_steps": 2, "support_size": 4, "query_size": 8}
    demo = demo.model_copy(update={"methods": {**demo.methods, "maml": second, "fomaml": second}})
    plan = make_plan(demo, nominal_inputs(demo))
    keys = " ".join(sorted([*(m.key for m in plan.metas), *(r.key for r in plan.runs)]))
    # Of protocol 2; a new protocol has new keys.
    assert hashlib.md5(keys.encode()).hexdigest() == "f6b6028f257c30b03c7ec4cd594423e9"


@pytest.mark.parametrize(
    ("changes", "which"),
    [
        ({"prompt": {"draw_per": "seed"}}, "prompts"),
        ({"prompt": {"draw_per": "run"}}, "prompts"),
        ({"prompt": {"frequent": "c4"}}, "prompts"),
        ({"adaptation": {"epochs": 7}}, "adapted"),
        ({"adaptation": {"reshuffle": False}}, "adapted"),
        ({"adaptation": {"batch_parts": 2}}, "adapted"),
        ({"finetuning": {"epochs": 7}}, "tuned"),
        ({"finetuning": {"batch_parts": 2}}, "tuned"),
        ({"finetuning_backbone": "other"}, "tuned"),
        ({"evaluation": {"f1_labels": "gold"}}, "runs"),
        ({"evaluation": {"bounded": False}}, "runs"),
        ({"meta": {"reduction": "sum"}}, "learned"),
        ({"meta": {"inner_lr_unit": "start"}}, "learned"),
        ({"meta": {"max_output_tokens": 9}}, "learned"),
        ({"meta": {"reshuffle": False}}, "learned"),
    ],
)
def test_every_option_changes_the_keys_of_what_it_changes(changes, which):
    inputs = facts(("s1", "s2", "t1", "t2"))
    old, new = (make_plan(study(**c), inputs) for c in ({}, changes))
    metas = {m.key for m in old.metas} & {m.key for m in new.metas}
    assert bool(metas) == (which not in ("prompts", "learned"))
    for a, b in zip(old.runs, new.runs, strict=True):
        tuned, learned = a.method.kind == "ft", a.start is not None
        touched = {"prompts": not tuned, "adapted": not tuned, "tuned": tuned, "learned": learned}
        assert (a.key != b.key) == touched.get(which, True)


def test_what_the_paper_preset_says_is_what_the_released_files_say():
    # By hand from docs/paper.md and the fact sheet behind it, not from the preset.
    paper = study(preset="paper")
    adaptation, tuning, how = paper.adaptation, paper.finetuning, paper.evaluation
    assert (adaptation.steps, adaptation.epochs, adaptation.batch_size) == (3000, 1000, 16)
    assert (adaptation.eval_every, adaptation.eval_start, adaptation.select) == (50, False, "last")
    assert (tuning.steps, tuning.epochs, tuning.batch_size, tuning.eval_every) == (1000, 300, 16, 50)
    assert paper.learning_rates == [0.5, 0.4, 0.3, 0.2]
    assert paper.finetuning_learning_rates == [5e-4, 3e-4, 2e-4, 1e-4]
    assert all(part.dropout for part in (adaptation, tuning, paper.meta))
    decoding = how.decoding
    assert (decoding.num_beams, decoding.repetition_penalty, decoding.length_penalty) == (4, 2.5, 1.0)
    assert decoding.max_new_tokens + 1 == 128  # the start token counts in max_length
    assert (how.scoring, how.f1_labels, how.bounded) == ("generate", "union", False)
    assert (paper.prompt.length, paper.prompt.init, paper.prompt.top) == (100, "task_names", 5000)
    assert (paper.text.template, paper.text.max_input_tokens) == (" [{task}] {input}", 512)
    limits = {m.name: m.meta.max_output_tokens for m in resolve_methods(paper) if m.meta}
    assert limits == {"multitask": 128, "maml": 64, "fomaml": 64, "reptile": 64}
    sizes = {
        m.name: (m.algorithm.inner_steps, m.algorithm.support_size, m.algorithm.query_size, m.meta.meta_batch)
        for m in resolve_methods(paper)
        if m.meta
    }
    assert sizes["maml"] == (1, 2, 2, 2)
    assert sizes["fomaml"] == (1, 4, 4, 2)
    assert sizes["reptile"] == (10, 4, 0, 2)
    assert sizes["multitask"][2] == 4
    assert {m.meta.reduction for m in resolve_methods(paper) if m.name in ("maml", "fomaml")} == {"sum"}
    assert method(paper, "reptile").algorithm.difference
    for config in (paper.meta.optimizer, adaptation.optimizer):
        assert (config.name, config.clip_threshold, config.decay_rate, config.weight_decay) == (
            "adafactor", 1.0, -0.8, 1e-5,
        )  # fmt: skip
    assert paper.test_rows["quail"] == 1000
    assert "glue-qqp" not in paper.test_rows


def test_nothing_of_the_corrected_preset_is_against_our_advice():
    assert [v.what for v in protocol(study(preset="corrected")) if not v.sound] == []
    paper = {v.what: v for v in protocol(study(preset="paper")) if not v.sound}
    for what in ("prompt tested", "labels of macro-F1", "work of the methods", "fine-tuning: weights"):
        assert paper[what].reason
        assert paper[what].evidence


@pytest.mark.skipif(SHARED is None, reason="shared/paper is not here")
def test_the_published_start_is_found_again():
    known = json.loads((SHARED / "paper" / "init_check.json").read_text())
    assert published_tokens(5000, known["n"], known["seed"], 0) == known["token_ids"]
    counts = pd.read_csv(SHARED / "paper" / "c4_token_frequency.csv").sort_values(
        "count", ascending=False, kind="stable"
    )
    assert c4_tokens(5000) == [i for i in counts["token_id"] if i != 2][:5000]
    with pytest.raises(SoftstartError, match=r"Lower prompt\.top"):
        c4_tokens(5001)


def test_starts_are_drawn_anew_for_seeds_samples_or_runs():
    backbone, tasks = random_t5(torch.float32), [toy_task("w3")]

    def start(draw_per, *key, draw=0):
        return draw_start(backbone, PromptSpec(length=3, draw_per=draw_per), tasks, *key, draw=draw)

    assert torch.equal(start("seed", 42, 13), start("seed", 42))  # a run's, and that of meta-training
    assert torch.equal(start("seed", 42, 13), start("seed", 42, 21))
    assert not torch.equal(start("sample", 42, 13), start("sample", 42, 21))
    assert torch.equal(start("sample", 42, 13, draw=1), start("sample", 42, 13, draw=2))
    assert not torch.equal(start("run", 42, 13, draw=1), start("run", 42, 13, draw=2))
    with pytest.raises(SoftstartError, match="does not have T5's vocabulary"):
        draw_start(backbone, PromptSpec(length=3, frequent="c4"), tasks, 42)


def test_a_grid_has_one_start_a_run_in_the_order_of_its_samples_and_rates():
    inputs = facts(("s1", "s2", "t1", "t2"))
    declared = study(samples=[21, 13], prompt={"draw_per": "run"}, learning_rates=[0.5, 0.2, 0.1])
    plan = make_plan(declared, inputs)
    draws = {(r.sample, r.lr): r.draw for r in plan.runs if r.method.name == "pt" and r.task == "t1"}
    order = [(sample, lr) for sample in (21, 13) for lr in (0.5, 0.2, 0.1)]
    assert [draws[key] for key in order] == list(range(6))
    assert {r.draw for r in plan.runs if r.method.name != "pt"} == {0}
    assert len({r.key for r in plan.runs if r.method.name == "pt" and r.task == "t1"}) == 6


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
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    changes = {
        **SHRUNK, "preset": "paper", "samples": [13],
        "prompt": {"length": 3, "frequent": "tokenizer", "placement": "after_padding"}, "pack_size": 1,
        "test_rows": {"toy-c": 5},
        "evaluation": {"decoding": {"num_beams": 1, "max_new_tokens": 3}},
        "methods": {"pt": {}, "ft": {}, "maml": {}},
    }  # fmt: skip
    tables = {}
    for name, weights in (("same", None), ("other", str(tmp_path / "other"))):
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
    placed = {SoftPrompt.load(f).placement for f in (tmp_path / "same" / "prompts").iterdir()}
    assert placed == {"after_padding"}


def test_explain_protocol_from_the_command_line(capsys):
    def shown(*arguments):
        file = str(ROOT / "studies" / "real-smoke.yaml")
        assert cli._main(["explain-protocol", file, *arguments], debug=True) == 0
        return capsys.readouterr().out

    table = pd.read_csv(io.StringIO(shown("--format", "csv")), keep_default_na=False)
    row = table.set_index("value").loc["prompt tested"]
    assert (row.published, row.here, row.recommended) == ("last", "best", "best")
    assert "58 %" in row.evidence
    as_run = shown("--set", "preset=paper", "--format", "markdown", "--all")
    assert "| prompt tested | last | last | best |" in as_run
    assert "* seeds of meta-training: one learned start says nothing" in shown()


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_shipped_study_can_be_planned(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # settings that share data say so
        declared = load_study(file)
        plan = make_plan(declared, nominal_inputs(declared))
    assert plan.cells
    assert all(node.method.meta.steps > 0 for node in plan.metas)
    assert declared.name == file.stem or file.stem == "demo"


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


KINDS = {"paper-bart": "bart", "paper-gpt2": "gpt2"}
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


def test_a_quirk_study_becomes_tables(finished, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.quirks.__main__ import STUDIES as QUIRKS
    from experiments.quirks.__main__ import section

    assert {f"quirk-{name}" for name in QUIRKS} == {f.stem for f in STUDIES if f.stem.startswith("quirk")}
    for name in ("results", "runs", "curves"):
        main = pd.read_csv(finished[0] / f"{name}.csv")
        pd.concat([main, main.assign(variant="last")]).to_csv(tmp_path / f"{name}.csv", index=False)
    rows = pd.read_csv(tmp_path / "results.csv")
    last = (rows["variant"] == "last") & (rows["method"] == "maml")
    rows.loc[last, "test"] -= 0.25
    rows.to_csv(tmp_path / "results.csv", index=False)
    text = "\n".join(section("tested-prompt", tmp_path))
    assert "| unit, maml | last | -25.0 [-25.0, -25.0] | 0/0/2 | 0.5 | 0.5 |" in text
    assert "| unit, pt | last | +0.0 [+0.0, +0.0] | 0/2/0 | 1 | 1 |" in text
    assert "published: 58 %" in text
    assert "Not run yet." in "\n".join(section("f1", tmp_path / "none"))
    rows.replace({"variant": {"last": "paper"}}).to_csv(tmp_path / "results.csv", index=False)
    text = "\n".join(section("protocol", tmp_path))
    # maml lost 25 points under the one variant alone, everything else is the same under both.
    found = re.search(r"\| multitask - maml \| \W*([+-][\d.]+) .*?\| \W*([+-][\d.]+) ", text)
    assert float(found[1]) - float(found[2]) == pytest.approx(25, abs=0.11)
    assert "Rank correlation of ARG under the two protocols" in text


def test_what_was_measured_of_other_quirk_studies_stays_on_the_page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.quirks.__main__ import sections

    page = (ROOT / "experiments/quirks/results.md").read_text()
    parts = sections(page)
    assert page.rstrip().endswith("\n".join(parts.values()).rstrip())
    assert "maml ~ fomaml" in parts["inner-rate"]


def test_the_best_dev_score_of_all_steps_chooses_the_rate_and_ties_go_to_the_first():
    paper = study(preset="paper", adaptation={"steps": 150})
    plan = make_plan(paper, facts(("s1", "s2", "t1", "t2")))
    cell = next(c for c in plan.cells if c.method.name == "pt")
    assert [run.lr for run in cell.runs] == [0.5, 0.4, 0.3, 0.2]
    curves = {
        0.5: [[50, 0.25, 1.0], [100, 0.5, 1.0], [150, 0.125, 1.0]],
        0.4: [[50, 0.5, 1.0], [100, 0.25, 1.0], [150, 0.5, 1.0]],
        0.3: [[50, 0.25, 1.0], [100, 0.25, 1.0], [150, 0.25, 1.0]],
        0.2: [[50, None, 1.0], [100, 0.375, 1.0], [150, 0.25, 1.0]],
    }
    done = {
        run.key: {"curve": [[s, float("nan") if d is None else d, x] for s, d, x in curves[run.lr]],
                  "status": "done", "steps": 150}
        for run in cell.runs
    }  # fmt: skip
    last = choose(cell, paper, done, 150)
    assert (last.run.lr, last.dev, last.best_step, last.tested_step) == (0.5, 0.5, 100, 150)
    best = choose(cell, paper.model_copy(update={"adaptation": AdaptConfig(steps=150)}), done, 150)
    assert (best.run.lr, best.tested_step) == (0.5, 100)


def test_the_published_ranking_beside_that_of_a_mini_study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.published.__main__ import agreement

    def rows(setting, gains, **more):
        return pd.DataFrame(
            [
                {
                    "setting": setting,
                    "method": name,
                    "task": task,
                    "sample": 13,
                    "test": 0.5 * (1 + gain),
                    **more,
                }
                for name, gain in {"pt": 0.0, **gains}.items()
                for task in ("a", "b")
            ]
        )

    there = {"multi": 0.1, "maml": 0.2, "reptile": 0.3}
    published = pd.concat(
        [rows(s, there, backbone="t5-large", prompt_length=100, variant="main") for s in ("cls2cls", "qa2qa")]
    )
    same, turned = ({"multitask": a, "maml": 0.2, "reptile": b} for a, b in ((0.0, 0.5), (0.5, 0.0)))
    mini = pd.concat([rows("mini-cls2cls", same, budget=200), rows("mini-qa2qa", turned, budget=200)])
    lines = list(agreement(published, mini))
    assert "| cls2cls | 3 | 1 | reptile | reptile |" in lines
    assert "| qa2qa | 3 | -1 | reptile | multitask |" in lines
    assert lines[-1] == "Mean rank correlation over 2 settings: 0.00."
