"""A few SGD steps of each of R runs, the moves of their prompts [R, P, d]: softstart's pack, peers alone."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from benchmarks.engine.timing import Absent, Contender
from benchmarks.engine.work import PROMPT, Work

from softstart.backbone import IGNORE
from softstart.training.gradients import run_gradients

LR = 0.3


def softstart(work: Work, dtype: torch.dtype = torch.float32, *, compiled: bool = False) -> Contender:
    """All runs as one pack."""
    batch, bound = work.joined(list(range(work.runs))), 2048
    backbone = work.backbone_in(dtype) if compiled or dtype != torch.float32 else work.backbone
    if compiled:
        backbone.compile()

    def step() -> torch.Tensor:
        prompts = work.starts.clone()
        for _ in range(work.steps):
            prompts -= LR * run_gradients(backbone, prompts, batch, bound)[1]
        return prompts - work.starts

    return step


def softstart_half(work: Work) -> Contender:
    """All runs as one pack on a bfloat16 backbone; prompts and their updates stay float32."""
    return softstart(work, torch.bfloat16)


def softstart_compiled(work: Work) -> Contender:
    """All runs as one pack, its layers compiled by torch; the first step, which compiles, is not timed."""
    return softstart(work, compiled=True)


def transformers_loop(work: Work) -> Contender:
    """The paper's way: prompt and embeddings joined by hand, one run after the other."""
    model = work.plain()

    def step() -> torch.Tensor:
        done = []
        for r in work.in_turn:
            prompt, batch = work.starts[r].clone().requires_grad_(), work.batch(r)
            optimizer = torch.optim.SGD([prompt], lr=LR)
            for _ in range(work.steps):
                text = model.get_input_embeddings()(batch.input_ids)
                embeds = torch.cat((prompt.expand(len(batch), -1, -1), text), 1)
                mask = torch.cat((batch.attention_mask.new_ones(len(batch), PROMPT), batch.attention_mask), 1)
                optimizer.zero_grad()
                model(inputs_embeds=embeds, attention_mask=mask, labels=batch.labels).loss.backward()
                optimizer.step()
            done.append(prompt.detach() - work.starts[r])
        return torch.stack(done)

    return step


def peft_loop(work: Work, dtype: torch.dtype = torch.float32) -> Contender:
    """PEFT's PromptTuning in a plain torch loop."""
    model, prompt = tuned(work, dtype)

    def step() -> torch.Tensor:
        done = []
        for r in work.in_turn:
            prompt.data.copy_(work.starts[r])
            optimizer = torch.optim.SGD([prompt], lr=LR)
            batch = work.batch(r)
            given = {
                "input_ids": batch.input_ids,
                "attention_mask": batch.attention_mask,
                "labels": batch.labels,
            }
            for _ in range(work.steps):
                optimizer.zero_grad()
                model(**given).loss.backward()
                optimizer.step()
            done.append(prompt.detach() - work.starts[r])
        return torch.stack(done)

    return step


def peft_half(work: Work) -> Contender:
    """PEFT's PromptTuning in a plain torch loop on a bfloat16 model."""
    return peft_loop(work, torch.bfloat16)


def peft_trainer(work: Work) -> Contender:
    """PEFT's PromptTuning with transformers' Trainer; its construction is not avoidable between runs."""
    model, prompt = tuned(work)
    try:
        import accelerate  # noqa: F401
        from transformers import PrinterCallback, Trainer, TrainingArguments
    except ImportError as problem:
        raise Absent(f"transformers.Trainer: {problem}") from problem
    folder = tempfile.mkdtemp()
    arguments = TrainingArguments(
        folder, max_steps=work.steps, per_device_train_batch_size=work.rows, learning_rate=LR, optim="sgd",
        lr_scheduler_type="constant", max_grad_norm=0.0, use_cpu=True, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip

    def step() -> torch.Tensor:
        done = []
        for r in work.in_turn:
            prompt.data.copy_(work.starts[r])
            batch = work.batch(r)
            rows = [
                {"input_ids": i[m > 0], "labels": t[t != IGNORE]}
                for i, m, t in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True)
            ]
            trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=_padded)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            prompt.grad = None
            done.append(prompt.detach() - work.starts[r])
        return torch.stack(done)

    return step


def tuned(work: Work, dtype: torch.dtype = torch.float32) -> tuple[Any, torch.nn.Parameter]:
    """PEFT's PromptTuning and its prompt."""
    try:
        from peft import PromptTuningConfig, get_peft_model
    except ImportError as problem:
        raise Absent("PEFT is not installed: pip install 'softstart[bench]'") from problem
    config = PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=work.prompt,
        num_transformer_submodules=1,  # the encoder's prompt alone
    )
    model = get_peft_model(work.plain().to(dtype), config)
    return model, model.prompt_encoder["default"].embedding.weight


def _padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    def pad(name: str, fill: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence([r[name] for r in rows], batch_first=True, padding_value=fill)

    ids = pad("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": pad("labels", IGNORE)}


CONTENDERS = {
    "softstart": softstart,
    "transformers loop": transformers_loop,
    "PEFT, plain loop": peft_loop,
    "PEFT, HF Trainer": peft_trainer,
    "softstart, bfloat16": softstart_half,
    "PEFT, plain loop, bfloat16": peft_half,
}
COMPILED = {"softstart, compiled": softstart_compiled}
"""Asked for by ``--compiled``."""
