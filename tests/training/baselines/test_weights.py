"""LoRA begins as the backbone, takes PEFT's steps and leaves the backbone alone."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from helpers.families import random_backbone
from helpers.models import random_t5, toy_encoded
from softstart.errors import SoftstartError
from softstart.training.baselines.base import Given
from softstart.training.baselines.weights import LoRA
from softstart.training.configs import FineTuneConfig
from softstart.training.evaluation import Evaluation
from softstart.training.finetuning import finetune
from softstart.training.gradients import weight_loss

STEPS = FineTuneConfig(steps=2, batch_size=8, eval_every=1)


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_it_takes_the_steps_of_peft(exact_norm, family):
    backbone = random_t5() if family == "t5" else random_backbone("gpt2")
    task = toy_encoded(backbone)
    lora = LoRA(training=STEPS, rank=2, alpha=4)
    tuned = finetune(backbone, task, 13, 1e-2, STEPS, Evaluation(scoring="rank"), trainable=lora.trainable(5))
    # The same two steps by PEFT's own wrapper: all 8 rows in a step.
    with torch.random.fork_rng():
        torch.manual_seed(5)
        config = LoraConfig(r=2, lora_alpha=4, task_type=backbone.peft_task)
        wrapped = get_peft_model(backbone.trainable_copy().model, config)
    weights = {n: p for n, p in wrapped.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.0)
    rows, losses = task.train[13], []
    for _ in range(2):
        total = count = 0
        for text, (answer,) in zip(rows.inputs, rows.outputs, strict=True):
            if family == "t5":
                out = wrapped(input_ids=torch.tensor([text]), labels=torch.tensor([answer])).logits[0]
            else:
                out = wrapped(input_ids=torch.tensor([text + answer])).logits[0, len(text) - 1 : -1]
            loss = torch.nn.functional.cross_entropy(out, torch.tensor(answer), reduction="sum")
            total, count = total + loss, count + len(answer)
        losses.append((total / count).item())
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert [loss for _, _, loss in tuned.curve] == pytest.approx(losses, rel=1e-9)
    if tuned.best_step == 2:
        for name, value in tuned.weights.items():
            theirs = next(p for n, p in weights.items() if n.endswith(name))
            assert torch.allclose(value, theirs, rtol=1e-7, atol=1e-10)


def test_it_begins_as_the_backbone_which_stays_as_it_is():
    backbone = random_t5(torch.float32)
    task, digest = toy_encoded(backbone), backbone.digest
    twin = LoRA(rank=2).trainable().copy(backbone)
    batch = _batch(backbone, task)
    assert torch.allclose(weight_loss(twin, batch), weight_loss(backbone, batch), rtol=1e-5)
    trained = {name for name, p in twin.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    tests = {}
    given = Given(backbone, task, 13, 3e-2, 0, Evaluation(scoring="rank"))
    training = FineTuneConfig(steps=30, batch_size=8, eval_every=10, budgets=(10,))
    learned = LoRA(training=training, rank=2).run(given, lambda s, score: tests.setdefault(s, score()))
    assert learned.curve[-1][2] < 0.9 * learned.curve[0][2]
    assert learned.best_step in tests
    assert learned.trained == 2 * 2 * 3 * 2 * (16 + 12)  # rank, q and v, three attentions, two layers
    assert learned.stored == 4 * learned.trained
    del backbone.__dict__["digest"]
    assert backbone.digest == digest


def test_layers_that_are_not_there_are_one_clear_error():
    backbone = random_t5(torch.float32)
    with pytest.raises(SoftstartError, match=r"LoRA does not fit 'random-t5' .*methods\.lora\.modules"):
        LoRA(modules=("nowhere",)).trainable().copy(backbone)


def _batch(backbone, task):
    from softstart.training.encoding import to_batch

    rows = task.train[13]
    pairs = [(text, out[0]) for text, out in zip(rows.inputs, rows.outputs, strict=True)]
    return to_batch(pairs, [0] * len(pairs), backbone.tokenizer.pad_token_id)
