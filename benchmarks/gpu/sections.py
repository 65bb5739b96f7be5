"""What is measured: each section is a function of the sizes that yields named measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from benchmarks.gpu.work import OUTPUT, Model, Size, peak_bytes, relative, seconds
from torch.nn import functional

from softstart.algorithms import MAML, Episodes
from softstart.backbone import Decoding, t5_layers
from softstart.memory import traced, weight_bytes
from softstart.objective import PromptObjective, run_gradients, run_losses
from softstart.optim import OptimizerConfig, make_optimizer

Found = dict[str, Any]
Section = Callable[[Size], Iterator[tuple[str, Callable[[], Found]]]]
BOUNDS = {"packed": 1e-4, "maml": 1e-3, "bfloat16": 0.05}
"""Relative distances that are allowed: float32 sums in another order; bfloat16 gradients (2.7 % on a CPU)."""


def correctness(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Packed = alone and MAML = autograd in float32; bfloat16 near it; the same bits twice."""
    shape = size.shapes[0]

    def packed() -> Found:
        model = Model(size, shape, torch.float32)
        stack, batch = model.starts(3), model.batch(3, ragged=True)
        together = run_gradients(model.backbone, stack, batch)[1]
        alone = []
        for r in range(3):
            own = batch.select((batch.run == r).nonzero().squeeze(1))
            own = replace(own, run=torch.zeros_like(own.run))
            alone.append(run_gradients(model.backbone, stack[r : r + 1], own)[1][0])
        return _bounded("packed", relative(together, torch.stack(alone)))

    def maml() -> Found:
        model = Model(size, shape, torch.float32)
        theta, lr = model.starts(1)[0], 0.3
        support, query = [model.batch(1, rows=2, seed=k) for k in range(2)], model.batch(1, rows=2, seed=9)
        loss = PromptObjective(model.backbone, None)
        found, _ = MAML(inner_lr=lr, inner_steps=2).meta_gradient(loss, theta, Episodes(1, support, query))
        leaf = theta.clone().requires_grad_()
        phi = leaf[None]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            for batch in support:
                value = run_losses(model.backbone, phi, batch).sum()
                phi = phi - lr * torch.autograd.grad(value, phi, create_graph=True)[0]
            (expected,) = torch.autograd.grad(run_losses(model.backbone, phi, query).sum(), leaf)
        return _bounded("maml", relative(found, expected))

    def bfloat16() -> Found:
        exact, half = Model(size, shape, torch.float32), Model(size, shape, torch.bfloat16)
        stack, batch = exact.starts(2), exact.batch(2)
        found = [run_gradients(m.backbone, stack, batch)[1] for m in (exact, half)]
        return _bounded("bfloat16", relative(found[1], found[0]))

    def deterministic() -> Found:
        model = Model(size, shape)
        stack, batch = model.starts(2), model.batch(2, ragged=True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            first, again = (run_gradients(model.backbone, stack, batch)[1] for _ in "ab")
        finally:
            torch.use_deterministic_algorithms(False)
        plain, twice = (run_gradients(model.backbone, stack, batch)[1] for _ in "ab")
        same = bool(torch.equal(first, again))
        return {"same_bits": same, "without_the_mode": bool(torch.equal(plain, twice)), "ok": same}

    yield from (("packed = alone", packed), ("MAML = autograd", maml), ("bfloat16", bfloat16))
    yield "determinism", deterministic


def peak(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """The rate of a square matrix product: what is called peak here."""

    def product() -> Found:
        n = size.matmul
        a, b = (torch.randn(n, n, device=size.device, dtype=size.dtype) for _ in "ab")
        return {"flops": 2.0 * n**3 / seconds(lambda: a @ b, size)}

    yield "matmul", product


def packs(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Optimizer steps of packs of R runs: run-steps and model FLOPs a second; peak memory, the weights in it,
    what is foretold beside them, and the ratio of both together to the peak.
    """
    for shape in size.shapes:
        model = Model(size, shape)
        for runs in size.packs:
            yield f"{shape} R={runs}", lambda model=model, runs=runs: _step(model, size, runs)
        del model


def compiled(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """The encoder through torch.compile (first order only: it has no double backward)."""

    def step() -> Found:
        model, runs = Model(size, size.shapes[0]), min(8, size.packs[-1])
        plain = t5_layers.encode
        # The smoke run takes the graphs and leaves the compiler out, which needs minutes on a CPU.
        backend = "inductor" if size.device.type == "cuda" else "aot_eager"
        t5_layers.encode = torch.compile(plain, backend=backend)  # type: ignore[assignment]
        try:
            return _step(model, size, runs)
        finally:
            t5_layers.encode = plain  # type: ignore[assignment]

    yield f"{size.shapes[0]} R={min(8, size.packs[-1])}", step


def paper(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """The published loop at the published batch: one run, transformers' model, full logits, Adafactor."""
    for shape in size.shapes:

        def loop(shape: str = shape) -> Found:
            from transformers.optimization import Adafactor

            model = Model(size, shape)
            plain, batch = model.model, model.batch(1)
            prompt = model.starts(1)[0].clone().requires_grad_()
            optimizer = Adafactor([prompt], lr=0.3, scale_parameter=False, relative_step=False)
            labels = batch.labels

            def step() -> None:
                text = plain.get_input_embeddings()(batch.input_ids)
                embeds = torch.cat((text, prompt.to(text.dtype).expand(len(batch), -1, -1)), 1)
                mask = batch.attention_mask.new_ones(embeds.shape[:2])
                logits = plain(inputs_embeds=embeds, attention_mask=mask, labels=labels).logits
                optimizer.zero_grad()
                functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten()).backward()
                optimizer.step()

            taken = seconds(step, size)
            return {"seconds": taken, "run_steps": 1 / taken, "memory": peak_bytes(size)}

        yield shape, loop


def meta(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """An exact MAML step as published: two tasks, one inner step, two support and two query rows each."""
    for shape in size.shapes:

        def step(shape: str = shape) -> Found:
            model = Model(size, shape)
            support, query = [model.batch(2, rows=2)], model.batch(2, rows=2, seed=1)
            theta, loss = model.starts(1)[0], PromptObjective(model.backbone)
            episodes = Episodes(2, support, query)
            taken = seconds(lambda: MAML(inner_lr=3e-5).meta_gradient(loss, theta, episodes), size)
            return {"seconds": taken, "memory": peak_bytes(size)}

        yield shape, step


def decoding(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Rows generated a second: greedy to five tokens, and four beams to 128 as published."""
    for shape in size.shapes:
        for beams, tokens in ((1, 5), (4, size.beams_tokens)):

            def search(shape: str = shape, beams: int = beams, tokens: int = tokens) -> Found:
                model, rows = Model(size, shape), 2 * size.rows
                stack, batch = model.starts(1), model.batch(1, rows=rows)
                how = Decoding(num_beams=beams, max_new_tokens=tokens, repetition_penalty=2.5)

                def do() -> None:
                    with torch.no_grad():
                        model.backbone.generate_ids(*model.backbone.place(stack, batch), how)

                taken = seconds(do, replace(size, rounds=min(3, size.rounds)))
                return {"seconds": taken, "rows": rows / taken, "memory": peak_bytes(size)}

            yield f"{shape} beams={beams}", search


SECTIONS: dict[str, Section] = {
    "correctness": correctness,
    "peak": peak,
    "packs": packs,
    "compile": compiled,
    "paper": paper,
    "meta": meta,
    "decoding": decoding,
}


def _bounded(name: str, difference: float) -> Found:
    return {"difference": difference, "bound": BOUNDS[name], "ok": difference <= BOUNDS[name]}


def _step(model: Model, size: Size, runs: int) -> Found:
    """One optimizer step of a pack."""
    stack, batch = model.starts(runs), model.batch(runs)
    optimizer = make_optimizer(stack, torch.full((runs,), 0.3), OptimizerConfig())
    bound = 16384

    def step() -> None:
        _, gradient = run_gradients(model.backbone, stack, batch, bound)
        optimizer.step(stack, gradient)

    peak_bytes(size)
    taken = seconds(step, size)
    flops = len(batch) * model.backbone.row_flops(size.prompt + size.text, OUTPUT).gradient
    memory, weights = peak_bytes(size), weight_bytes(model.backbone)
    foretold = _foretold(model, size, runs, bound)
    return {
        "seconds": taken,
        "run_steps": runs / taken,
        "rows": len(batch) / taken,
        "flops": flops / taken,
        "memory": memory,
        "weights": weights,
        "foretold": foretold,
        "ratio": (weights + foretold) / memory if memory else 0.0,
    }


def _foretold(model: Model, size: Size, runs: int, bound: int) -> int:
    """The memory model's peak of a step beside the weights."""
    from softstart.memory import META, equal_rows
    from softstart.study.needs import shape_of

    if size.device.type != "cuda":
        return 0
    shadow = shape_of(f"google/t5-v1_1-{model.shape}", str(model.dtype).removeprefix("torch."))
    stack = torch.empty(runs, size.prompt, shadow.width, device=META)
    rows = equal_rows(runs * size.rows, size.text, OUTPUT, runs=runs)
    return traced(lambda: run_gradients(shadow, stack, rows, bound), "cuda").tensors
