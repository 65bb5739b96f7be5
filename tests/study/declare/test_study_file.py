"""Study files: strict keys, overrides, variants."""

from __future__ import annotations

import pytest
import yaml

from helpers import toy_study
from helpers.declared import method, study
from helpers.rows import STUDY
from softstart.errors import SoftstartError
from softstart.study import parse_study
from softstart.study.declare.spec import resolve_methods
from softstart.study.declare.study_file import variants_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": {}}, "study.yaml: metod: no such key. Did you mean methods or meta"),
        (
            {"methods": {"mmaml": {}}},
            "methods.mmaml: unknown method 'mmaml'. Did you mean maml or",
        ),
        ({"methods": {"maml": {"inner_rate": 1}}}, "'inner_rate' is not a field of maml. Known: .*inner_lr"),
        ({"methods": {"pt": {"lr": 1}}}, "'lr' is not a field of pt"),
        ({"methods": {}}, "methods: Dictionary should have at least 1 item"),
        ({"learning_rates": [0]}, "learning_rates.0: Input should be greater than 0"),
        ({"adaptation": {"stepz": 1}}, "adaptation.stepz: no such key. Did you mean steps"),
        ({"adaptation": {"steps": 0}}, "AdaptConfig.steps must be greater than 0"),
        ({"prompt": {"placement": "middle"}}, "prompt.placement: unknown placement 'middle'"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(changes, message):
    with pytest.raises(SoftstartError, match=message) as caught:
        parse_study(yaml.safe_dump({**STUDY, **changes}), "study.yaml")
    assert "\n" not in str(caught.value)


def test_broken_yaml_and_tags_are_refused():
    for text in ("a: [1", "- 1", "a: !!python/object/apply:os.system [ls]"):
        with pytest.raises(SoftstartError, match=r"study\.yaml: "):
            parse_study(text, "study.yaml")


def test_overrides_reach_nested_keys_and_methods():
    text = yaml.safe_dump(STUDY)
    study = parse_study(text, "s", ["meta.steps=7", "methods.maml.inner_lr=0.25", "samples=[42]"])
    maml = next(m for m in resolve_methods(study) if m.name == "maml")
    assert (maml.meta.steps, maml.algorithm.inner_lr, maml.algorithm.inner_steps) == (7, 0.25, 3)
    assert study.samples == [42]
    for bad in ("meta", "name.x=1"):
        with pytest.raises(SoftstartError, match="override"):
            parse_study(text, "s", [bad])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"x": {"name": "y"}}}, "variants.x: 'name' is shared by all variants"),
        ({"variants": {"x": {"prompt.lenght": 5}}}, "variants.x: prompt.lenght: no such key. Did you mean"),
        ({"settings": ["mini-cls2cls"]}, "one setting under 'setting' or several under 'settings'"),
        (
            {"adaptation": {"steps": 8, "budgets": [4, 9]}},
            "budgets must ascend from 1 to at most 8",
        ),
        ({"finetuning": {"steps": 8, "budgets": [4, 2]}}, "FineTuneConfig.budgets must ascend"),
    ],
)
def test_a_wrong_axis_is_one_line_with_its_key(changes, message):
    with pytest.raises(SoftstartError, match=message):
        parse_study(yaml.safe_dump({**toy_study.STUDY, **changes}), "study.yaml")


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
        ({"methods": {"maml": {"epochs": -1}}}, "methods.maml.epochs: -1 is out of range"),
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


def test_a_misspelled_key_is_named_before_the_one_that_is_missing():
    with pytest.raises(SoftstartError, match=r"metods: no such key\. Did you mean methods"):
        parse_study("{name: s, gym: mini, setting: mini-cls2cls, metods: {pt: {}}}", "study.yaml")
