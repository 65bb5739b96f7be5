"""PEFT puts a prompt before the padding of a left-padded row; the page shows what to do instead."""

from __future__ import annotations

from types import SimpleNamespace

import peft
import pytest
import torch

from helpers.families import random_backbone
from helpers.models import prompts
from helpers.own_tables import documented

NEW = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
SHORT, LONG = "w5 w9 w11", "w7 w8 w9 w10 w11 w12 w13 w14"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_left_padded_ids_go_wrong_in_peft_and_left_padded_embeddings_do_not(name):
    backbone = random_backbone(name, torch.float32)
    backbone.model.generation_config.update(eos_token_id=None, pad_token_id=0)
    prompt = prompts(backbone, runs=1, length=4)[0]
    ids = backbone.tokenizer([SHORT, LONG]).input_ids
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    made = peft.get_peft_model(backbone.model, config).eval()
    made.prompt_encoder["default"].embedding.weight.data = prompt.clone()
    alone = [made.generate(input_ids=torch.tensor([row]), **NEW)[0, len(row) :].tolist() for row in ids]
    padding = [0] * (len(ids[1]) - len(ids[0]))
    mask = torch.tensor([[0] * len(padding) + [1] * len(ids[0]), [1] * len(ids[1])])
    given = {"input_ids": torch.tensor([padding + ids[0], ids[1]]), "attention_mask": mask}
    together = made.generate(**given, **NEW)[:, len(ids[1]) :].tolist()
    assert together[1] == alone[1]
    assert together[0] != alone[0], "PEFT has mended it: take the warning out of docs/ecosystem.md"
    space = {
        "torch": torch, "model": backbone.model, "tokenizer": backbone.tokenizer, "texts": [SHORT, LONG],
        "prompt": SimpleNamespace(tensor=prompt),
    }  # fmt: skip
    exec(documented("<!-- left padding -->"), space)
    assert space["output"].tolist() == alone
