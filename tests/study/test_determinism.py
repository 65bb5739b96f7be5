"""The promise of docs/determinism.md for CPUs: equal bits in any layout of processes, packs to rounding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.toy_study import contents, toy
from softstart import SoftPrompt
from softstart.errors import SoftstartError
from softstart.storage.tensors import load_tensors
from softstart.study import run_study
from softstart.study.results.folder import prompt_path
from softstart.study.run.resources import Resources

CHANGES = {
    "methods": {"pt": {}, "maml": {"inner_lr": 0.1}, "reptile": {"inner_lr": 0.1, "inner_steps": 2}},
    "meta": {"steps": 3, "lr": 0.3, "checkpoint_every": 1},
}


def run(study, folder, **how):
    outcome = run_study(study, folder, **how)
    assert not outcome.failures
    assert not outcome.missing
    return folder


@pytest.fixture(scope="module")
def once(world, tmp_path_factory):
    return run(toy(world, **CHANGES), tmp_path_factory.mktemp("once") / "o", device="cpu")


def test_the_same_study_twice_is_the_same_to_the_bit(world, once, tmp_path):
    assert contents(run(toy(world, **CHANGES), tmp_path / "o", device="cpu")) == contents(once)


@pytest.mark.slow
def test_four_workers_are_the_same_to_the_bit(world, once, tmp_path):
    assert contents(run(toy(world, **CHANGES), tmp_path / "o", device="cpu", workers=4)) == contents(once)


def test_packs_of_one_and_sixteen_are_the_same_to_rounding(world, once, tmp_path):
    """Not to the bit: matrix products of more rows take their sums in another order."""
    alone = run(toy(world, **CHANGES, pack_size=1), tmp_path / "o", device="cpu")
    prompts = [{file.name: file for file in (folder / "prompts").glob("*")} for folder in (once, alone)]
    assert prompts[0].keys() == prompts[1].keys()
    assert len(prompts[0]) > 10
    for name in prompts[0]:
        (one, _), (other, _) = (load_tensors(files[name]) for files in prompts)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_allclose(one[key].numpy(), other[key].numpy(), rtol=1e-4, atol=1e-4)
    columns = ["method", "task", "sample", "seed", "lr", "dev", "test", "run"]
    tables = [pd.read_csv(folder / "results.csv")[columns] for folder in (once, alone)]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("how", [{"gradient_checkpointing": True}, {"device_map": "auto"}])
def test_a_backbone_loaded_otherwise_gives_the_same_to_rounding(world, once, tmp_path, how):
    if "device_map" in how:
        pytest.importorskip("accelerate")
    study = toy(world, **{**CHANGES, "methods": {"pt": {}}}, **how)
    assert study.loading == {"dtype": "float32", **how}
    folders = (once, run(study, tmp_path / "o", device="cpu"))
    tables = [pd.read_csv(folder / "results.csv").query("method == 'pt'") for folder in folders]
    columns = ["task", "sample", "seed", "lr", "dev", "test"]
    pd.testing.assert_frame_equal(*(table[columns].reset_index(drop=True) for table in tables))
    # It is another result under another key.
    assert set(tables[0]["run"]).isdisjoint(tables[1]["run"])
    for keys in zip(*(table["run"] for table in tables), strict=True):
        one, other = (
            SoftPrompt.load(prompt_path(folder, key)).tensor
            for folder, key in zip(folders, keys, strict=True)
        )
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-4)
    if "gradient_checkpointing" in how:  # only layers as transformers has them can be recomputed
        assert not Resources({"main": study}, "cpu").backbone("main").lean


def test_what_loading_cannot_do_is_refused(world):
    assert toy(world).loading == {"dtype": "float32"}
    with pytest.raises(SoftstartError, match="device_map spreads frozen weights; 'ft' trains them"):
        toy(world, device_map="auto", methods={"tuned": {"algorithm": "ft"}})
    with pytest.raises(SoftstartError, match="device_map: Input should be 'auto'"):
        toy(world, device_map="cuda:1")
    with pytest.raises(SoftstartError, match="gradient_checkpointing: Input should be a valid boolean"):
        toy(world, gradient_checkpointing="often")
