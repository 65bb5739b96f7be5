"""The gate of all methods: every learner is tested and documented, and unknown ones are refused."""

from __future__ import annotations

import re
import sys

import pytest

from helpers.episodes import SMALL
from helpers.paths import ROOT
from softstart.algorithms import (
    MAML,
    MetaSGD,
)
from softstart.errors import SoftstartError
from softstart.training.configs import MetaConfig
from softstart.training.methods import BASELINES, LEARNERS, resolve_method
from softstart.training.optimizers import SGD


def test_every_registered_algorithm_is_tested():
    assert SMALL.keys() == LEARNERS.keys()


def test_every_registered_algorithm_is_in_the_documented_table_with_the_paper_of_its_file():
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    table = page.split("## Algorithms")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.M))
    assert rows.keys() == LEARNERS.keys()
    for name, paper in rows.items():
        assert paper == "–" or paper in sys.modules[LEARNERS[name].__module__].__doc__, name


def test_every_registered_baseline_is_in_the_documented_table_as_it_declares_itself():
    page = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \|" + r" ([^|]+) \|" * 3, page, re.M)}
    assert rows.keys() == BASELINES.keys()
    for name, (source, uses, trains) in rows.items():
        declared = BASELINES[name]
        assert source == "–" or source in sys.modules[declared.__module__].__doc__, name
        assert trains == declared.trains
        assert uses == (" and ".join(declared.uses).replace("rows and", "and") or "nothing")


def test_a_method_has_the_label_and_color_of_its_kind_and_a_variant_its_own_name():
    def method(name, **values):
        return resolve_method(name, values, MetaConfig(), "study")

    assert [(method(name).label, method(name).color) for name in ("pt", "metasgd")] == [
        (BASELINES["pt"].label, BASELINES["pt"].color),
        ("Meta-SGD", MetaSGD.color),
    ]
    variant = method("maml5", algorithm="maml", inner_steps=5)
    assert (variant.label, variant.color, variant.algorithm) == ("maml5", MAML.color, MAML(inner_steps=5))


def test_no_two_kinds_share_a_label_or_a_color():
    declared = [*BASELINES.values(), *LEARNERS.values()]
    assert (
        len({entry.label for entry in declared}) == len({entry.color for entry in declared}) == len(declared)
    )


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mmaml", {}, r"s: unknown method 'mmaml'\. Did you mean maml"),
        ("m", {"algorithm": "xyz"}, r"unknown method 'xyz'\. Use one of pt, ft, zero_shot, "),
        ("m", {"algorithm": 3}, "unknown method '3'"),
        ("m", {"algorithm": ["maml"]}, r"unknown method '\['maml'\]'"),
        ("pt", {"lr": 1.0}, "'lr' is not a field of pt. Known: demonstrations, init"),
        ("pt", {"init": "nowhere"}, "init: unknown initializer 'nowhere'"),
        ("ft", {"lr": 1.0}, "'ft' takes no overrides"),
        ("maml", {"inner_lr": "0.1"}, "inner_lr: Input should be a valid number"),
        ("maml", {"optimizer": {"name": "sgd", "betas": [0, 0]}}, "optimizer: 'betas' is not a field of sgd"),
    ],
)
def test_mistakes_are_named(name, values, message):
    with pytest.raises(SoftstartError, match=message):
        resolve_method(name, values, MetaConfig(), "s")


def test_a_method_can_have_its_own_optimizer_and_keeps_numbers_as_they_are_written():
    method = resolve_method("maml", {"inner_lr": 1, "optimizer": {"name": "sgd"}}, MetaConfig(), "study")
    assert method.meta.optimizer == SGD()
    assert repr(method.algorithm.inner_lr) == "1"  # as in the keys of older results
