"""Prompts that would give numbers without meaning are refused when they are loaded or used."""

from __future__ import annotations

import json
import warnings

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import save_file

from helpers.families import random_backbone, random_model
from helpers.own_tables import failed
from softstart import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt

BAD = [float("nan"), float("inf"), -float("inf"), 1e300]


def written(tensor, folder, kind):
    """A prompt [P, d] as a file of each format that is read; PEFT's folders have no header of ours."""
    if kind == ".npy":
        np.save(folder / "prompt.npy", tensor.numpy())
    elif kind == ".pt":
        torch.save({"promptembedding": tensor}, folder / "prompt.pt")
    elif kind == "softstart":
        SoftPrompt(tensor, "some").save(folder / "prompt.safetensors")
    else:
        config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": "some"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        if kind == "peft":
            save_file({"prompt_embeddings": tensor}, folder / "adapter_model.safetensors")
        else:
            torch.save({"prompt_embeddings": tensor}, folder / "adapter_model.bin")
        return folder
    return next(path for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("kind", ["softstart", "peft", "peft .bin", ".pt", ".npy"])
@pytest.mark.parametrize("value", BAD)
def test_entries_that_are_no_numbers_are_refused_in_every_format(tmp_path, kind, value):
    tensor = torch.ones(3, 4, dtype=torch.float64)
    path = written(tensor, tmp_path, kind)
    assert SoftPrompt.load(path).tensor.shape == (3, 4)
    tensor[1, 2] = value
    with pytest.raises(
        SoftstartError, match=r"1 of 12 entries of '\w+' are NaN or infinite, the first in row 2"
    ):
        SoftPrompt.load(written(tensor, tmp_path, kind))


def test_so_are_those_of_what_was_learned_with_it(tmp_path):
    rates = {"log_rates": torch.full((3, 1), float("nan"))}
    SoftPrompt(torch.ones(3, 4), "some", further=rates).save(tmp_path / "prompt.safetensors")
    with pytest.raises(SoftstartError, match="3 of 3 entries of 'log_rates' are NaN or infinite"):
        SoftPrompt.load(tmp_path / "prompt.safetensors")


def test_the_commands_refuse_them_in_one_line(tmp_path):
    tiny = Backbone.from_pretrained("softstart/tiny", device="cpu")
    SoftPrompt.of(tiny, torch.full((3, tiny.width), float("nan"))).save(tmp_path / "nan.safetensors")
    (tmp_path / "rows.csv").write_text("input,label\n" + "a good film,yes\na bad film,no\n" * 9)
    for command in (
        ("predict", "nan.safetensors", "--rows", "rows.csv", "--out", "out.csv"),
        ("evaluate", "nan.safetensors", "--rows", "rows.csv"),
        ("adapt", "--init", "nan.safetensors", "--train", "rows.csv"),
        ("export", "nan.safetensors", "adapter"),
    ):
        assert "are NaN or infinite" in failed(*command, cwd=tmp_path)


@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_CLS"])
def test_an_adapter_for_another_kind_of_model_is_refused(tmp_path, task):
    of = "gpt2" if task == "CAUSAL_LM" else "bart"
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, base_model_name_or_path="some/model"
    )
    peft.get_peft_model(random_model("gpt2", torch.float32), config).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "task_type": task}))
    backbone = random_backbone("bart" if of == "gpt2" else "gpt2", torch.float32)
    with pytest.raises(
        SoftstartError, match=f"was trained for task type {task}, but backbone .* {backbone.peft_task}"
    ):
        SoftPrompt.load(tmp_path).check_for(backbone)


def test_a_prompt_of_another_model_without_a_digest_is_used_with_a_warning():
    backbone = random_backbone("bart", torch.float32)
    tensor = torch.ones(3, backbone.width)
    with pytest.warns(UserWarning, match="trained on 'some/model' and is used on .* is not recorded"):
        SoftPrompt(tensor, "some/model").check_for(backbone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftPrompt(tensor, f"owner/{backbone.name}").check_for(backbone)
        SoftPrompt(tensor).check_for(backbone)


def test_a_configuration_that_does_not_fit_its_tensor_is_refused(tmp_path):
    path = written(torch.ones(5, 4), tmp_path, "peft")
    with pytest.raises(SoftstartError, match="says 3 virtual tokens, but the prompt next to it has 5 rows"):
        SoftPrompt.load(path)


def test_a_prompt_in_half_precision_is_read(tmp_path):
    array = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float16)
    np.save(tmp_path / "p.npy", array)
    assert torch.equal(SoftPrompt.load(tmp_path / "p.npy").tensor, torch.tensor(array).float())


def test_what_cannot_be_one_prompt_is_said_without_advice_to_open_it_all_the_same(tmp_path):
    torch.save({"prompt_embeddings": object()}, tmp_path / "p.pt")
    with pytest.raises(SoftstartError, match="holds something else than tensors") as caught:
        SoftPrompt.load(tmp_path / "p.pt")
    assert not {"weights_only", "trust"} & set(str(caught.value).split())
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "adapter_model-00001-of-00002.safetensors").touch()
    with pytest.raises(SoftstartError, match=r"the adapter is in several files\. Save it as one"):
        SoftPrompt.load(tmp_path / "shards")
