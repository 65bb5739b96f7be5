"""A placement from outside of the package: one object, named by its import path, works in a study."""

from __future__ import annotations

import sys

import pytest
import torch

from helpers.models import prompts, random_batch, random_t5, relative
from helpers.toy_study import make_world, toy
from softstart.errors import SoftstartError
from softstart.prompt import PLACEMENTS, SoftPrompt
from softstart.study import run_study

MODULE = """
import torch
from softstart.prompt import Placement
from softstart.prompt.placement import suffix


def around_the_text(prompts, text, mask):
    half = prompts.shape[1] // 2
    joined, joined_mask = suffix(prompts[:, half:], text, mask)
    ones = mask.new_ones(len(mask), half)
    return torch.cat((prompts[:, :half], joined), 1), torch.cat((ones, joined_mask), 1)


around = Placement(around_the_text, "around the text")
nothing = "not a placement"
"""
AROUND = "outside_placement.around"


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A module that is not in the package, as a user's own on PYTHONPATH."""
    (tmp_path / "outside_placement.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("outside_placement", None)


def test_a_study_runs_under_it_to_the_report(outside, tmp_path):
    world = make_world(tmp_path)
    methods = {"pt": {}, "maml": {"inner_lr": 0.1}}
    study = toy(world, methods=methods, samples=[13], prompt={"length": 4, "placement": AROUND})
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert (outcome.failures, outcome.missing) == ([], 0)
    assert (tmp_path / "out" / "report.html").exists()
    prompts = {file.name: SoftPrompt.load(file) for file in (tmp_path / "out" / "prompts").iterdir()}
    assert {prompt.placement for prompt in prompts.values()} == {AROUND}
    assert not run_study(toy(world, methods=methods, samples=[13]), tmp_path / "plain", device="cpu").failures
    plain = {file.name for file in (tmp_path / "plain" / "prompts").iterdir()}
    assert plain
    assert not plain & set(prompts)


def test_rows_under_it_stay_independent_and_equal_rows_joined_by_hand(outside, exact_norm):
    backbone = random_t5(placement=AROUND)
    stack, batch = prompts(backbone, length=4), random_batch([(5, 2, 0), (9, 3, 1), (2, 1, 3)])
    sums, counts = backbone.nll(stack, batch)
    for b in range(len(batch)):
        row = batch.select(torch.tensor([b]))
        first, last = stack[row.run].split(2, dim=1)
        joined = torch.cat((first, backbone.embedding(row.input_ids), last), 1)
        loss = backbone.model(inputs_embeds=joined, labels=row.labels).loss
        assert relative(sums[b] / counts[b], loss) < 1e-12


def test_it_can_be_registered_under_a_name(outside, monkeypatch):
    monkeypatch.setattr(PLACEMENTS, "_entries", dict(PLACEMENTS))
    PLACEMENTS.add("around", PLACEMENTS.find(AROUND))
    assert random_t5(placement="around").placement == "around"


def test_what_is_not_a_placement_is_refused(outside, tmp_path):
    with pytest.raises(SoftstartError, match=r"'outside_placement.nothing' is not a placement"):
        random_t5(placement="outside_placement.nothing")
    with pytest.raises(
        SoftstartError, match=r"prompt.placement: cannot import the placement 'no_such.place'"
    ):
        toy(tmp_path, prompt={"placement": "no_such.place"})


def test_peft_is_not_given_prompts_that_it_would_put_elsewhere(outside, tmp_path):
    prompt = SoftPrompt.of(random_t5(placement=AROUND), torch.zeros(4, 16))
    with pytest.raises(SoftstartError, match="cannot be a PEFT adapter"):
        prompt.save_pretrained(tmp_path / "adapter")
    prompt.save(tmp_path / "prompt.safetensors")
    assert SoftPrompt.load(tmp_path / "prompt.safetensors").placement == AROUND
