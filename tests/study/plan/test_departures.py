"""Departures from the published protocol: only what is known to be as published is reported so."""

from __future__ import annotations

import io

import pandas as pd
import yaml

from helpers.paths import ROOT
from softstart.cli import app as cli
from softstart.errors import listed
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.settings import shipped_settings
from softstart.prompt import PLACEMENTS, Placement
from softstart.prompt.placement import suffix
from softstart.study import parse_study
from softstart.study.declare.spec import resolve_methods
from softstart.study.plan.departures import NONE, protocol
from softstart.study.plan.inputs import Inputs, Part, TaskFacts

METHODS = {name: {} for name in ("pt", "ft", "multitask", "maml", "fomaml", "reptile")}


def study(**changes):
    declared = {"name": "x", "preset": "paper", "setting": "study/cls2cls", "gym": "folder", **changes}
    return parse_study(yaml.safe_dump({"methods": METHODS, **declared}, sort_keys=False), "study.yaml")


LISTS = shipped_settings("study")["cls2cls"]


def inputs(
    name="cls2cls", source=LISTS.source, target=LISTS.target, shots=16, metric=None, published=("v1", "v2")
):
    """The facts of a study of a published setting, as far as they are not replaced."""
    catalog = crossfit_catalog()
    tasks = {
        task: TaskFacts(
            task,
            metric or (catalog[task].metric if task in catalog else "ACC"),
            shots,
            published=published,
        )
        for task in (*source, *target)
    }
    return Inputs("b", 8, (Part("main", name, tuple(source), tuple(target), tasks, tuple(source)),))


def departing(declared, facts=None):
    return {value.what: value.here for value in protocol(declared, facts) if not value.same}


def test_the_paper_preset_departs_nowhere_but_where_it_must():
    must = {"precision": "float32", "place of the prompt": "after the text (suffix)"}
    assert departing(study(), inputs()) == departing(study()) == must
    letter = {"prompt": {"placement": "after_padding"}, "pack_size": 1}
    assert departing(study(**letter), inputs()) == {"precision": "float32"}
    changed = departing(study(meta_seeds=[42, 43], meta={"steps": 60}), inputs())
    assert {what: changed[what] for what in changed.keys() - must} == {
        "seeds of meta-training": "several: 42, 43",
        "maml, fomaml, reptile: length of meta-training": "60 steps, at most 120 epochs",
    }


def test_only_the_files_that_were_used_read_as_they_were_are_as_published():
    names = sorted({*LISTS.source, *LISTS.target})
    for published, changes, here in (
        (("v2",), {}, f"others than those of v1: {listed(names)}; read as published"),
        ((), {}, f"others than those of v1: {listed(names)}; read as published"),
        (("v1",), {"gym_reading": "strict"}, "those of v1, read strictly"),
    ):
        found = departing(study(**changes), inputs(published=published))
        assert found["files of the tasks"] == here
    text = inputs().to_json()
    assert Inputs.from_json(text) == inputs()


OWN = {"name": "random", "source": ["mine", "yours"], "target": ["ours"]}


def test_a_setting_is_what_it_lists_and_not_its_name():
    facts = inputs(name="random", source=OWN["source"], target=OWN["target"])
    for seen in (departing(study(setting=OWN)), departing(study(setting=OWN), facts)):
        assert seen["source and target tasks"] == "other lists: random"
        assert seen["tasks"] == "other tasks: mine, ours, yours"
    # The same lists under another name are as published, whatever their order.
    named = {"name": "mine", "source": list(LISTS.source)[::-1], "target": list(LISTS.target)}
    assert departing(study(setting=named)).keys() == {"precision", "place of the prompt"}
    # Fewer source tasks of a published setting are another setting, and one that cannot be read is unknown.
    assert departing(study(source_tasks=12))["source and target tasks"] == "other lists: study/cls2cls"
    unread = departing(study(setting="nowhere.yaml"))
    assert (unread["tasks"], unread["source and target tasks"]) == ("unknown", "other lists: nowhere.yaml")


def test_a_task_of_the_gym_has_its_name_and_its_metric():
    other = "Pearson-Correlation"
    assert departing(study(), inputs(metric=other))["tasks"].startswith(
        "other tasks: ade_corpus_v2-classification, ag_news, "
    )
    some = inputs(target=["emo", "mine"])
    assert departing(study(), some)["tasks"] == "NLP Few-shot Gym and other tasks: mine"
    assert departing(study(gym="mini", setting="mini-cls2cls"))["tasks"] == "mini gym"


def test_k_is_that_of_the_kind_of_a_task():
    assert departing(study(), inputs(shots=32))["k"] == "32"  # classification tasks have 16 of every class
    assert "k" not in departing(study(), inputs())


def test_a_value_from_outside_is_reported_by_its_name(monkeypatch):
    mine = Placement(suffix, "after the text and its padding")
    monkeypatch.setattr(PLACEMENTS, "_entries", {**PLACEMENTS, "mine": mine})
    letter = {"prompt": {"placement": "mine"}, "pack_size": 1}
    assert departing(study(**letter), inputs())["place of the prompt"] == f"{mine.label} (mine)"


def test_other_cut_test_sets_are_not_the_published_ones():
    assert "test sets" not in departing(study())
    assert departing(study(test_rows={"mine": 1000}))["test sets"] == "cut for mine, at 1,000 rows"


def test_settings_that_no_published_method_has_are_listed():
    seen = {value.what: value for value in protocol(study(methods={"pt": {}, "imaml": {}, "maml": {}}))}
    assert seen["imaml: inner learning rate"].published == NONE
    assert {what for what in seen if what.startswith("imaml: ")} >= {"imaml: strength", "imaml: iterations"}
    assert not any(what.startswith("maml: ") and value.published == NONE for what, value in seen.items())


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
    reptile = next(m for m in resolve_methods(paper) if m.name == "reptile")
    assert reptile.algorithm.difference
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


def test_rates_are_shown_with_their_unit():
    by_embedding = study(
        methods={"pt": {}, "maml": {}},
        adaptation={"lr_unit": "embedding"},
        meta={"lr_unit": "embedding", "lr": 0.25, "inner_lr_unit": "start"},
        learning_rates=[0.4, 0.25],
    )
    shown = {value.what: value.here for value in protocol(by_embedding)}
    assert shown["learning rates of adaptation"] == "in units of the embedding's entries: 0.4, 0.25"
    assert shown["maml: outer learning rate"] == "in units of the embedding's entries: 0.25"
    assert shown["maml: inner learning rate"].startswith("in units of the prompt's entries: ")
