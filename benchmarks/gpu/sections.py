"""What is measured: each section is a function of the sizes that yields named measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from benchmarks.gpu.causal import causal
from benchmarks.gpu.kernels import kernel_shares
from benchmarks.gpu.peers import meta_gradients, paper_loop, peft_loop
from benchmarks.gpu.work import (
    OUTPUT,
    Model,
    Size,
    allocated,
    interleaved,
    peak_bytes,
    relative,
    seconds,
)

from softstart.algorithms import MAML, Episodes
from softstart.backbone import Decoding
from softstart.backbone.memory_model import traced, weight_bytes
from softstart.training.gradients import run_gradients, run_losses
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import Adafactor, StackedOptimizer

BOUND = 65536
"""Tokens of one forward pass."""
Found = dict[str, Any]
Section = Callable[[Size], Iterator[tuple[str, Callable[[], Found]]]]
BOUNDS = {"packed": 1e-4, "maml": 1e-3, "compiled": 1e-4}
"""Relative distances that are allowed: float32 sums in another order."""


def correctness(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Packed = alone and MAML = autograd in float32; bfloat16 near it; the same bits twice."""
    shape = size.shapes[0]

    def packed() -> Found:
        model = Model(size, shape, torch.float32)
        stack, batch = model.starts(3), model.batch(3, ragged=True)
        together = run_gradients(model.backbone, stack, batch)[1]
        alone = []
        for r in range(3):
            of_run = batch.select((batch.run == r).nonzero().squeeze(1))
            of_run = replace(of_run, run=torch.zeros_like(of_run.run))
            alone.append(run_gradients(model.backbone, stack[r : r + 1], of_run)[1][0])
        return _bounded("packed", relative(together, torch.stack(alone)))

    def maml() -> Found:
        model = Model(size, shape, torch.float32)
        theta, lr = model.starts(1)[0], 0.3
        support, query = [model.batch(1, rows=2, seed=k) for k in range(2)], model.batch(1, rows=2, seed=9)
        loss = PromptObjective(model.backbone, None)
        exact, _ = MAML(inner_lr=lr, inner_steps=2).meta_gradient(loss, theta, Episodes(1, support, query))
        leaf = theta.clone().requires_grad_()
        phi = leaf[None]
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            for batch in support:
                value = run_losses(model.backbone, phi, batch).sum()
                phi = phi - lr * torch.autograd.grad(value, phi, create_graph=True)[0]
            (expected,) = torch.autograd.grad(run_losses(model.backbone, phi, query).sum(), leaf)
        return _bounded("maml", relative(exact, expected))

    def compiled() -> Found:
        model = Model(size, shape, torch.float32)
        stack, batch = model.starts(3), model.batch(3, ragged=True)
        plain = run_gradients(model.backbone, stack, batch)[1]
        model.backbone.compile()
        return _bounded("compiled", relative(run_gradients(model.backbone, stack, batch)[1], plain))

    def bfloat16(compiled: bool) -> Found:
        exact, half = Model(size, shape, torch.float32), Model(size, shape, size.dtype, compiled=compiled)
        stack, batch = exact.starts(2), exact.batch(2)
        wanted = run_gradients(exact.backbone, stack, batch)[1]
        ours = relative(run_gradients(half.backbone, stack, batch)[1], wanted)
        half.backbone.lean = False
        theirs = relative(run_gradients(half.backbone, stack, batch)[1], wanted)
        return {"difference": ours, "bound": 1.25 * theirs, "ok": ours <= 1.25 * theirs}

    def dropout() -> Found:
        model = Model(size, shape, torch.float32)
        model.model = model.own
        model.model.config.dropout_rate = 0.1
        batch = replace(model.batch(2), seed=7)
        first, again = (run_gradients(model.backbone, model.starts(2), batch)[1] for _ in "ab")
        other = run_gradients(model.backbone, model.starts(2), replace(batch, seed=8))[1]
        same = bool(torch.equal(first, again))
        return {"same_bits": same, "ok": same and relative(other, first) > 0.01}

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

    yield from (("packed = alone", packed), ("MAML = autograd", maml), ("compiled = plain", compiled))
    yield "bfloat16, against transformers' own", lambda: bfloat16(False)
    yield "bfloat16, compiled, against transformers' own", lambda: bfloat16(True)
    yield "the same dropout twice", dropout
    yield "determinism", deterministic


def peak(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """The rate of a square matrix product, which is called peak here, in the dtype and in float32; a copy."""

    def product(dtype: torch.dtype) -> Found:
        n = size.matmul
        a, b = (torch.randn(n, n, device=size.device, dtype=dtype) for _ in "ab")
        return {"flops": 2.0 * n**3 / seconds(lambda: a @ b, size)}

    def copy() -> Found:
        a = torch.randn(size.matmul, 4 * size.matmul, device=size.device)
        b = torch.empty_like(a)
        return {"bytes": 2.0 * a.nbytes / seconds(lambda: b.copy_(a), size)}

    yield "matmul", lambda: product(size.dtype)
    yield "matmul, float32", lambda: product(torch.float32)
    yield "copy", copy


def profile(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Where the time of a step goes: shares of the kernels' time by kind, and the share the GPU is busy."""
    shape, runs = size.shapes[0], min(16, size.packs[-1])
    for compiled in (False, True):

        def shares(compiled: bool = compiled) -> Found:
            model = Model(size, shape, compiled=compiled)
            stack, batch = model.starts(runs), model.batch(runs)
            return kernel_shares(lambda: run_gradients(model.backbone, stack, batch, BOUND), size)

        yield f"{shape} R={runs}{', compiled' * compiled}", shares


def packs(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Optimizer steps of packs of R runs: run-steps and model FLOPs a second; peak memory, the weights in it,
    what is predicted without them, and the ratio of both together to the peak.
    """
    for shape in size.shapes:
        for compiled in (False, True):
            for runs in size.packs:

                def step(shape: str = shape, compiled: bool = compiled, runs: int = runs) -> Found:
                    return _step(Model(size, shape, compiled=compiled), size, runs)

                yield f"{shape} R={runs}{', compiled' * compiled}", step
    most = min(16, size.packs[-1])
    for bound in (4096, 16384):
        yield (
            f"{size.shapes[0]} R={most}, compiled, {bound} tokens a pass",
            lambda bound=bound: _step(Model(size, size.shapes[0], compiled=True), size, most, bound=bound),
        )
    yield (
        f"{size.shapes[0]} R={most}, dropout",
        lambda: _step(Model(size, size.shapes[0]), size, most, dropout=True),
    )


def scaling(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """A step of one pack along one axis at a time: rows of the prompt, tokens of the text, the model."""
    shape, runs = size.shapes[0], min(16, size.packs[-1])
    for prompt in (1, 20, 200):
        other = replace(size, prompt=prompt)
        yield f"prompt of {prompt}", lambda size=other: _step(Model(size, shape, compiled=True), size, runs)
    for text in (size.text // 4, 2 * size.text, 5 * size.text):
        other = replace(size, text=text)
        yield f"text of {text}", lambda size=other: _step(Model(size, shape, compiled=True), size, runs)
    for name in ("small", "base", "xl") if size.device.type == "cuda" else ():
        bound = BOUND // 2 if name == "xl" else BOUND
        yield (
            f"model {name}",
            lambda name=name, bound=bound: _step(Model(size, name, compiled=True), size, runs, bound=bound),
        )


def peers(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Packs and loops of one run at a time, interleaved: seconds of a step of one run."""
    shape, runs = size.shapes[0], min(16, size.packs[-1])
    for ragged in (False, True):

        def compare(ragged: bool = ragged) -> Found:
            steps: dict[str, tuple[Callable[[], object], int]] = {}
            for compiled in (True, False):
                model = Model(size, shape, compiled=compiled)
                name = "pack, compiled" if compiled else "pack"
                steps[name] = (pack_step(model, runs, ragged=ragged), runs)
            steps["one run"] = (pack_step(model, 1, ragged=ragged), 1)
            wide = Model(size, shape, torch.float32)
            steps["pack, float32"] = (pack_step(wide, runs, ragged=ragged), runs)
            for dtype in (torch.float32, size.dtype):
                kind = str(dtype).removeprefix("torch.")
                fresh = Model(size, shape, dtype)
                steps[f"paper's loop, {kind}"] = (paper_loop(fresh, ragged), 1)
                steps[f"PEFT, {kind}"] = (peft_loop(Model(size, shape, dtype), ragged), 1)
            return interleaved(steps, size, min(5, size.rounds))

        yield f"{shape} R={runs}, {'ragged' if ragged else 'equal'} lengths", compare


def meta(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """An exact MAML step as published (one inner step, two support and two query rows a task) of more and
    more tasks in one batch: seconds of a task.
    """
    shape = size.shapes[0]
    for tasks in (1, 2, 8, 32):

        def step(tasks: int = tasks) -> Found:
            model = Model(size, shape)
            support, query = [model.batch(tasks, rows=2)], model.batch(tasks, rows=2, seed=1)
            theta, loss = model.starts(1)[0], PromptObjective(model.backbone)
            episodes = Episodes(tasks, support, query)
            peak_bytes(size)
            taken = seconds(lambda: MAML(inner_lr=3e-5).meta_gradient(loss, theta, episodes), size)
            return {"seconds": taken, "a_task": taken / tasks, "memory": peak_bytes(size)}

        yield f"{shape} {tasks} tasks", step


def maml(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """The exact meta-gradient of one task of two rows after K inner steps, float32, ours and ``higher``'s."""
    for steps in (1, 5, 10):
        yield f"{size.shapes[0]} K={steps}", lambda steps=steps: meta_gradients(size, size.shapes[0], steps)


def decoding(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Rows generated a second: greedy to five tokens, four beams to 128 as published; few and many rows."""
    shape = size.shapes[0]
    for beams, tokens in ((1, 5), (4, size.beams_tokens)):
        for rows in (2 * size.rows, 32 * size.rows):

            def search(beams: int = beams, tokens: int = tokens, rows: int = rows) -> Found:
                model = Model(size, shape)
                stack, batch = model.starts(1), model.batch(1, rows=rows)
                decoding = Decoding(num_beams=beams, max_new_tokens=tokens, repetition_penalty=2.5)

                def do() -> None:
                    with torch.no_grad():
                        model.backbone.generate_ids(*model.backbone.place(stack, batch), decoding)

                peak_bytes(size)
                taken = seconds(do, replace(size, rounds=1), warm=1)
                return {"seconds": taken, "rows": rows / taken, "memory": peak_bytes(size)}

            yield f"{shape} beams={beams}, {rows} rows", search


def ranking(size: Size) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Rows ranked a second among three label words, which is what ``fast`` evaluates classes by."""
    model_rows = 32 * size.rows

    def rank() -> Found:
        model = Model(size, size.shapes[0])
        stack, batch = model.starts(1), model.batch(1, rows=model_rows)
        words = torch.randint(5, 150, (model_rows, 3, 2), device=size.device)
        taken = seconds(lambda: model.backbone.rank(stack, batch, words, BOUND), size)
        return {"seconds": taken, "rows": model_rows / taken}

    yield f"{size.shapes[0]} 3 words, {model_rows} rows", rank


SECTIONS: dict[str, Section] = {
    "correctness": correctness,
    "peak": peak,
    "peers": peers,
    "profile": profile,
    "packs": packs,
    "meta": meta,
    "decoding": decoding,
    "ranking": ranking,
    "maml": maml,
    "causal": causal,
    "scaling": scaling,
}


def _bounded(name: str, difference: float) -> Found:
    return {"difference": difference, "bound": BOUNDS[name], "ok": difference <= BOUNDS[name]}


def pack_step(
    model: Model, runs: int, *, bound: int = BOUND, dropout: bool = False, ragged: bool = False
) -> Callable[[], None]:
    """An optimizer step of a pack."""
    if dropout:
        model.model = model.own
        model.model.config.dropout_rate = 0.1
    stack, batch = model.starts(runs), model.batch(runs, real=ragged)
    optimizer = StackedOptimizer(stack, torch.full((runs,), 0.3), Adafactor())
    if dropout:
        batch = replace(batch, seed=0)

    def step() -> None:
        _, gradient = run_gradients(model.backbone, stack, batch, bound)
        optimizer.step(stack, gradient)

    return step


def _step(model: Model, size: Size, runs: int, *, bound: int = BOUND, dropout: bool = False) -> Found:
    """A step of a pack, measured."""
    step = pack_step(model, runs, bound=bound, dropout=dropout)
    weights = weight_bytes(model.backbone)
    others = allocated(size) - weights  # models that other measurements left
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    peak_bytes(size)
    taken = seconds(step, size)
    rows = runs * size.rows
    flops = rows * model.backbone.row_flops(size.prompt + size.text, OUTPUT).gradient
    memory = max(0, peak_bytes(size) - others)
    predicted = 0 if dropout or model.compiled else _predicted(model, size, runs, bound)
    return {
        "seconds": taken,
        "first": first,
        "run_steps": runs / taken,
        "rows": rows / taken,
        "flops": flops / taken,
        "memory": memory,
        "weights": weights,
        "predicted": predicted,
        "ratio": (weights + predicted) / memory if memory and predicted else 0.0,
    }


def _predicted(model: Model, size: Size, runs: int, bound: int) -> int:
    """The memory model's peak of a step, without the weights."""
    from softstart.backbone.memory_model import META, equal_rows
    from softstart.study.cost.memory_needs import shape_of

    if size.device.type != "cuda":
        return 0
    shadow = shape_of(f"google/t5-v1_1-{model.shape}", str(model.dtype).removeprefix("torch."))
    stack = torch.empty(runs, size.prompt, shadow.width, device=META)
    rows = equal_rows(runs * size.rows, size.text, OUTPUT, runs=runs)
    return traced(lambda: run_gradients(shadow, stack, rows, bound), "cuda").tensors
