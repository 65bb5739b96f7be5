"""A model family from outside of the package: one class and one registration, and studies run on it."""

from __future__ import annotations

import pytest
import torch

from helpers.models import prompts, random_batch, random_t5
from helpers.toy_study import make_world, toy
from softstart.backbone import FAMILIES, Backbone, Seq2SeqBackbone, T5Backbone
from softstart.errors import SoftstartError
from softstart.study import run_study

PASSES = []


class PlainT5(Seq2SeqBackbone):
    """T5 by transformers' own forward passes, in place of the package's class."""

    model_types = ("t5",)

    def encode(self, embeds, mask):
        PASSES.append(len(embeds))
        return super().encode(embeds, mask)


class MixedT5(PlainT5):
    """A family that is wrong: every row sees the mean of its batch."""

    def encode(self, embeds, mask):
        states = super().encode(embeds, mask)
        return states + states.mean(0, keepdim=True)


@pytest.fixture
def family(monkeypatch):
    """Registers a family for the length of a test."""
    monkeypatch.setattr(FAMILIES, "_entries", dict(FAMILIES))
    return lambda made: FAMILIES.add("plain T5", made)


def test_a_study_runs_on_it_to_the_report(family, tmp_path):
    world = make_world(tmp_path)
    study = toy(world, methods={"pt": {}, "maml": {"inner_lr": 0.1}}, samples=[13])
    ours = run_study(study, tmp_path / "ours", device="cpu").rows
    assert type(Backbone.from_pretrained(str(world / "model"), device="cpu")) is T5Backbone
    family(PlainT5)
    PASSES.clear()
    outcome = run_study(study, tmp_path / "plain", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert len(PASSES) > 20
    assert (tmp_path / "plain" / "report.html").exists()
    columns = ["method", "task", "sample", "test"]
    assert set(columns) <= set(ours)
    assert outcome.rows[columns[:3]].equals(ours[columns[:3]])


def test_it_computes_what_the_package_does(family, tmp_path):
    world, original = make_world(tmp_path), random_t5(torch.float32)
    family(PlainT5)
    loaded = Backbone.from_pretrained(str(world / "model"), device="cpu")
    assert type(loaded) is PlainT5
    stack, batch = prompts(original), random_batch([(5, 2, 0), (9, 3, 3)])
    assert torch.allclose(loaded.nll(stack, batch)[0], original.nll(stack, batch)[0], rtol=1e-5)


def test_a_family_in_which_rows_mix_is_refused_when_a_model_is_loaded(family, tmp_path):
    world = make_world(tmp_path)
    family(MixedT5)
    with pytest.raises(SoftstartError, match="is not exact here: a row's loss changes with its neighbors"):
        Backbone.from_pretrained(str(world / "model"), device="cpu")
