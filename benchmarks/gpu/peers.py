"""What packs and the exact meta-gradient are compared with: loops of one run, unrolled inner loops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.engine.work import Work
from benchmarks.gpu.work import Model, Size, allocated, interleaved, peak_bytes, relative
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from softstart.algorithms import MAML, Episodes
from softstart.backbone import Batch
from softstart.training.objective import PromptObjective


def paper_loop(model: Model, ragged: bool) -> Callable[[], None]:
    """A step of the published loop at the published batch: the prompt joined by hand after the padded text,
    transformers' model, full logits, its Adafactor.
    """
    plain, batch = model.own, model.batch(1, real=ragged)
    prompt = model.starts(1)[0].clone().requires_grad_()
    optimizer = _adafactor(prompt)
    labels = batch.labels

    def step() -> None:
        text = plain.get_input_embeddings()(batch.input_ids)
        embeds = torch.cat((text, prompt.to(text.dtype).expand(len(batch), -1, -1)), 1)
        mask = torch.cat((batch.attention_mask, batch.attention_mask.new_ones(len(batch), len(prompt))), 1)
        logits = plain(inputs_embeds=embeds, attention_mask=mask, labels=labels).logits
        optimizer.zero_grad()
        functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten()).backward()
        optimizer.step()

    return step


def peft_loop(model: Model, ragged: bool) -> Callable[[], None]:
    """A step of PEFT's PromptTuning in a plain torch loop, the same optimizer."""
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=model.size.prompt, num_transformer_submodules=1
    )
    made, batch = get_peft_model(model.own, config), model.batch(1, real=ragged)
    optimizer = _adafactor(made.prompt_encoder["default"].embedding.weight)
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}

    def step() -> None:
        optimizer.zero_grad()
        made(**given).loss.backward()
        optimizer.step()

    return step


def _adafactor(prompt: torch.Tensor) -> Any:
    from transformers.optimization import Adafactor

    return Adafactor([prompt], lr=0.3, scale_parameter=False, relative_step=False)


def meta_gradients(size: Size, shape: str, steps: int) -> dict[str, Any]:
    """Seconds of a meta-gradient and its peak without the weights, of ours and of ``higher``, the paper's."""
    model = Model(size, shape, torch.float32)
    support = [model.batch(1, rows=2, seed=k) for k in range(steps)]
    query, theta = model.batch(1, rows=2, seed=steps), model.starts(1)[0]

    def ours(budget: int | None) -> Callable[[], torch.Tensor]:
        def step() -> torch.Tensor:
            loss = PromptObjective(model.backbone, None, budget)
            algorithm = MAML(inner_lr=Work.inner_lr, inner_steps=steps)
            return algorithm.meta_gradient(loss, theta, Episodes(1, support, query))[0]

        return step

    ways = {"all kept": ours(1 << 40), "last kept": ours(None), "all recomputed": ours(0)}
    with contextlib.suppress(ImportError):
        ways["higher"] = _higher(size, shape, theta, support, query)
    compared: dict[str, Any] = {}
    wanted = None
    for name, way in ways.items():
        if size.device.type == "cuda":
            torch.cuda.empty_cache()
        before = allocated(size)
        peak_bytes(size)
        answer = way()
        wanted = answer if wanted is None else wanted
        compared[name] = {"memory": peak_bytes(size) - before, "difference": relative(answer, wanted)}
    if steps < 10:  # longer ones take minutes
        timed = interleaved({name: (way, 1) for name, way in ways.items()}, size, min(3, size.rounds))
        compared = {name: {**timed[name], **more} for name, more in compared.items()}
    return compared


class _Prompted(torch.nn.Module):
    """A prompt [P, d] on a frozen model."""

    def __init__(self, model: Any, start: torch.Tensor) -> None:
        super().__init__()
        self.prompt, self.model = torch.nn.Parameter(start.clone()), model

    def forward(self, batch: Batch) -> torch.Tensor:
        return Work.loss(self.model, self.prompt, batch)


def _higher(
    size: Size, shape: str, theta: torch.Tensor, support: list[Batch], query: Batch
) -> Callable[[], torch.Tensor]:
    import higher

    net = _Prompted(Model(size, shape, torch.float32).own, theta)

    def step() -> torch.Tensor:
        optimizer = torch.optim.SGD([net.prompt], lr=Work.inner_lr)
        inner_loop = higher.innerloop_ctx(net, optimizer, copy_initial_weights=False)
        # The fused kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH), inner_loop as (inner, update):
            for batch in support:
                update.step(inner(batch))
            (gradient,) = torch.autograd.grad(inner(query), net.prompt)
        typed: torch.Tensor = gradient
        return typed

    return step
