"""Multitask prompts as PEFT's MULTITASK_PROMPT_TUNING: written, read, and the same loss in both."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.families import random_backbone, random_model
from helpers.models import random_batch, random_t5, relative
from softstart.backbone import IGNORE
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt, save_tasks
from softstart.prompt.multitask import COLUMNS, ROWS, SHARED, task_prompts

TASKS, LENGTH, RANK, WIDTH = 3, 4, 2, 16


def learned(backbone, **facts):
    generator = torch.Generator().manual_seed(0)
    shapes = {SHARED: (LENGTH, WIDTH), COLUMNS: (TASKS * LENGTH, RANK), ROWS: (TASKS * RANK, WIDTH)}
    further = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    u, v = further[COLUMNS].view(TASKS, LENGTH, RANK), further[ROWS].view(TASKS, RANK, WIDTH)
    start = further[SHARED] * (u.mean(0) @ v.mean(0))
    return SoftPrompt.of(backbone, start, {"algorithm": "multitask_prompt", **facts}, further)


def loss_of(model, name, batch, task):
    ids, labels = batch.input_ids, batch.labels
    if name == "gpt2":
        ids = torch.cat((ids, labels), 1)
        labels = torch.cat((torch.full_like(batch.input_ids, IGNORE), labels), 1)
    with torch.no_grad():
        return model(
            input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, task_ids=torch.tensor([task])
        ).loss


def backbone_of(name):
    return random_t5(torch.float32) if name == "t5" else random_backbone(name, torch.float32)


def model_of(name):
    return random_t5(torch.float32).model if name == "t5" else random_model(name, torch.float32)


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2"])
def test_peft_loads_every_task_and_computes_the_same_loss(name, tmp_path):
    backbone, batch = backbone_of(name), random_batch([(6, 3, 0)])
    prompt = learned(backbone)
    save_tasks(prompt, tmp_path / "tasks")
    model = peft.PeftModel.from_pretrained(model_of(name), str(tmp_path / "tasks")).eval()
    for task, own in enumerate(task_prompts(prompt.further)):
        sums, counts = backbone.nll(own[None], batch)
        theirs = loss_of(model, name, batch, task)
        assert abs(sums[0] / counts[0] - theirs) < 1e-6 * theirs
    back = SoftPrompt.load(tmp_path / "tasks")
    assert relative(back.tensor, prompt.tensor) < 1e-6
    assert all(torch.equal(back.further[key], of) for key, of in prompt.further.items())
    assert (back.backbone_digest, back.info) == (prompt.backbone_digest, prompt.info)


@pytest.mark.parametrize(("name", "submodules"), [("t5", 1), ("t5", 2), ("bart", 1), ("gpt2", None)])
def test_an_adapter_that_peft_wrote_begins_where_peft_begins_another_task(name, submodules, tmp_path):
    backbone, batch = backbone_of(name), random_batch([(6, 3, 0)])
    common = {
        "task_type": backbone.peft_task, "num_virtual_tokens": LENGTH, "num_ranks": RANK,
        "num_transformer_submodules": submodules,
    }  # fmt: skip
    torch.manual_seed(0)
    config = peft.MultitaskPromptTuningConfig(**common, num_tasks=TASKS, prompt_tuning_init="RANDOM")
    model = peft.get_peft_model(model_of(name), config).eval()
    for key, of in model.prompt_encoder["default"].named_parameters():
        of.data = torch.randn(of.shape) * (1.0 if "prefix" in key else 0.3)
    model.save_pretrained(tmp_path / "peft")
    if submodules == 2:  # PEFT's default for encoder-decoders
        with pytest.raises(
            SoftstartError, match="has 4 rows before the text and 4 before the output: PEFT uses"
        ):
            SoftPrompt.load(tmp_path / "peft")
        return
    prompt = SoftPrompt.load(tmp_path / "peft")
    for task, own in enumerate(task_prompts(prompt.further)):
        sums, counts = backbone.nll(own[None], batch)
        theirs = loss_of(model, name, batch, task)
        assert abs(sums[0] / counts[0] - theirs) < 1e-6 * theirs
    target = peft.MultitaskPromptTuningConfig(
        **common, num_tasks=1, prompt_tuning_init="AVERAGE_SOURCE_TASKS",
        prompt_tuning_init_state_dict_path=str(tmp_path / "peft" / "adapter_model.safetensors"),
    )  # fmt: skip
    begun = peft.get_peft_model(model_of(name), target).eval()
    sums, counts = backbone.nll(prompt.tensor[None], batch)
    theirs = loss_of(begun, name, batch, 0)
    assert abs(sums[0] / counts[0] - theirs) < 1e-6 * theirs


def test_what_does_not_fit_is_refused(tmp_path):
    backbone = random_t5(torch.float32)
    with pytest.raises(SoftstartError, match="the prompt has no prompts of source tasks"):
        save_tasks(SoftPrompt.of(backbone, torch.ones(2, WIDTH)), tmp_path / "plain")
    save_tasks(learned(backbone), tmp_path / "tasks")
    file = tmp_path / "tasks" / "adapter_model.safetensors"
    tensors = load_file(file)
    for key, wrong in (
        ("prefix_task_cols", tensors["prefix_task_cols"][:, :2]),
        ("prefix_task_rows", tensors["prefix_task_rows"][:2]),
        ("prefix_task_rows", tensors["prefix_task_rows"][0]),
        ("prefix_task_rows", None),
    ):
        changed = {**tensors, key: wrong}
        save_file({name: of.contiguous() for name, of in changed.items() if of is not None}, file)
        with pytest.raises(SoftstartError, match=r"the adapter has no prefix_task_cols \[N, P, rank\] and"):
            SoftPrompt.load(tmp_path / "tasks")
    config = json.loads((tmp_path / "tasks" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_tasks"]) == ("MULTITASK_PROMPT_TUNING", TASKS)
