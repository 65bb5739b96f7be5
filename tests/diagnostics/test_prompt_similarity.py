"""Stored prompts are compared as they are published: several in a file, files in a folder, one by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.own_tables import softstart
from softstart.analysis.similarity import prompt_similarity
from softstart.diagnostics.prompt_similarity import compare_prompts, nearest_prompts
from softstart.errors import SoftstartError

TASKS = ("anli", "emo", "wiki_qa")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file METHOD/TASK/best and /last, and a folder of two starts as ``.pt``."""
    folder = tmp_path_factory.mktemp("published")
    generator = torch.Generator().manual_seed(0)
    prompts = {}
    for method in ("pt", "maml"):
        for task in TASKS:
            best = torch.randn(4, 6, generator=generator)
            prompts[f"{method}/{task}/best"] = best
            # The same rows in another order, moved a little.
            prompts[f"{method}/{task}/last"] = best.flip(0) + 0.01 * torch.randn(4, 6, generator=generator)
    save_file(prompts, folder / "cls2cls.safetensors")
    (folder / "starts").mkdir()
    for number, name in enumerate(("maml", "fomaml")):
        start = torch.randn(4, 6, generator=generator)
        torch.save({"promptnumber": number, "promptembedding": start}, folder / "starts" / f"{name}.pt")
    save_file({"long": torch.ones(5, 6)}, folder / "other.safetensors")
    return folder, prompts


def test_all_prompts_of_a_file_are_compared_by_the_definitions(published):
    folder, prompts = published
    similar = compare_prompts([str(folder / "cls2cls.safetensors")])
    names = sorted(prompts)
    stack = np.stack([prompts[name].double().numpy() for name in names])
    assert list(similar) == ["flat", "mean", "matched"]
    for way, cosines in similar.items():
        assert list(cosines.index) == list(cosines.columns) == names
        np.testing.assert_allclose(cosines.to_numpy(), prompt_similarity(stack, way), atol=1e-6)
    # Best and last of a run are one prompt up to the order of rows.
    nearest = nearest_prompts(similar).set_index("prompt")
    assert nearest.loc["maml/emo/best", "nearest"] == "maml/emo/last"
    assert nearest.loc["maml/emo/best", "matched"] > 0.999 > nearest.loc["maml/emo/best", "flat"]


def test_the_command_takes_names_folders_and_mixtures(published):
    folder, _ = published
    code, out, err = softstart("similarity", "cls2cls.safetensors", cwd=folder)
    assert code == 0, err
    assert out.count("maml/emo/last") == 2
    one = "cls2cls.safetensors#pt/anli/best"
    code, out, err = softstart("similarity", one, "cls2cls.safetensors#pt/anli/last", "starts", cwd=folder)
    assert code == 0, err
    shown = {line.split()[0] for line in out.splitlines()[2:]}
    assert shown == {one, one.replace("best", "last"), "starts/maml.pt", "starts/fomaml.pt"}
    for given, said in (
        ([one], "one prompt alone has nothing to be compared with"),
        ([one, "other.safetensors"], "'other.safetensors#long' is [5, 6]"),
        (["starts", "starts"], "the prompt 'starts/fomaml.pt' is given twice"),
        ([one, "none.pt"], "none.pt"),
        (["starts", "--train", "rows.csv"], "stored prompts recommend no start"),
    ):
        code, _, err = softstart("similarity", *given, cwd=folder)
        assert code == 1
        assert said in " ".join(err.split())


def test_without_scipy_rows_are_not_matched(published, monkeypatch):
    monkeypatch.setattr("softstart.diagnostics.prompt_similarity.find_spec", lambda name: None)
    folder, _ = published
    similar = compare_prompts([str(folder / "starts")])
    assert list(similar) == ["flat", "mean"]
    with pytest.raises(SoftstartError, match="nothing to be compared"):
        compare_prompts([str(folder / "starts" / "maml.pt")])
