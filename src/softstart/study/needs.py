"""How much memory a worker needs for a study, by what it does, and how to cut what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from softstart.algorithms import THETA, Algorithm, Episodes, further, meta_gradients
from softstart.backbone import Backbone, Batch, T5Backbone, load_backbone
from softstart.backbone.devices import status_bytes
from softstart.backbone.shapes import published, untie
from softstart.encoding import encode_task
from softstart.errors import SoftstartError
from softstart.memory import META, equal_rows, traced, weight_bytes
from softstart.objective import PromptObjective, run_gradients
from softstart.study.prepare import Resources, resolve_setting
from softstart.study.spec import MAIN, Method, Study, resolve_methods, variants_of

STATE = 4
"""Stacks of prompts beside the gradient: in training, the best, and AdamW's two (Adafactor keeps less)."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest text and output, and the rows of the largest dev or test set."""

    text: int
    output: int
    rows: int = 1000
    labels: tuple[int, int] = (4, 8)
    """The most label words of a task, and tokens of the longest; of usual size where tasks are unknown."""


@dataclass(frozen=True)
class Part:
    """Something a worker does: its peak in bytes beside the weights, and the key that cuts it smaller."""

    name: str
    bytes: int
    key: str | None
    tokens: int | None
    measure: Callable[[int | None], int]

    def cut(self, room: int) -> int | None:
        """The largest of the halved bounds on tokens with which it fits; None where one row is too much."""
        if not self.key or not self.tokens or self.measure(1) > room:
            return None
        tokens = self.tokens // 2
        while tokens > 1 and self.measure(tokens) > room:
            tokens //= 2
        return max(1, tokens)


@dataclass(frozen=True)
class Needs:
    """Bytes a worker needs: before any work (``base``), for the weights, and for each part of the work."""

    device: str
    base: int
    weights: int
    parts: Sequence[Part]
    known: bool
    """Whether lengths are those of the tasks; else the most the study allows."""

    @property
    def total(self) -> int:
        """The peak."""
        return self.base + self.weights + max((part.bytes for part in self.parts), default=0)

    def check(self, memory: int) -> None:
        """Refuse what does not fit into so many bytes, and say how to cut what can be cut.

        Raises:
            SoftstartError: something does not fit.
        """
        room = memory - self.base - self.weights
        large = [part for part in self.parts if part.bytes > room]
        if not large:
            return
        bounds = {part: part.cut(room) for part in large}
        what = f"a worker needs {gib(self.total)} on {self.device}, which has {gib(memory)}"
        if stuck := [part.name for part, bound in bounds.items() if bound is None]:
            raise SoftstartError(
                f"{what}; {', '.join(stuck)} cannot be cut to fit",
                mend="Use a smaller backbone, dtype bfloat16, shorter inputs, or a larger device.",
            )
        smallest: dict[str, int] = {}
        for part, bound in bounds.items():
            if part.key and bound:
                smallest[part.key] = min(bound, smallest.get(part.key, bound))
        cuts = " ".join(f"--set {key}={bound}" for key, bound in smallest.items())
        raise SoftstartError(what, mend=f"It fits, with the same numbers, in smaller batches: {cuts}")


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.1f} GiB"


def study_needs(study: Study, device: str = "cpu", *, data: bool = True) -> Needs:
    """What a worker needs at most; the backbone's weights are not loaded.

    Args:
        study: the study, all its variants included.
        device: ``cpu`` or ``cuda``.
        data: read the tasks for the lengths of their texts; else the longest the study allows.

    Raises:
        SoftstartError: the backbone's configuration is not at hand.
    """
    backbone = shape_of(study.backbone, study.dtype, study.revision)
    base = 0 if device == "cuda" else status_bytes("VmRSS")
    parts: dict[str, Part] = {}
    known = data
    for each in variants_of(study).values():
        backbone.placement = each.prompt.placement
        found = _lengths(each, backbone) if data else None
        known = known and found is not None
        most = Lengths(each.text.max_input_tokens, each.text.max_output_tokens)
        for part in _parts(each, backbone, found or most, device):
            if part.name not in parts or part.bytes > parts[part.name].bytes:
                parts[part.name] = part
    return Needs(device, base, weight_bytes(backbone), list(parts.values()), known)


def shape_of(name: str, dtype: str, revision: str | None = None) -> Backbone:
    """A backbone without weights; the published sizes of T5 need no file.

    Raises:
        SoftstartError: its configuration is not at hand.
    """
    try:
        return load_backbone(name, dtype=dtype, revision=revision, weights=False)
    except SoftstartError:
        config = published(name)
        if config is None:
            raise
    from transformers import T5ForConditionalGeneration

    with torch.device(META):
        model = untie(T5ForConditionalGeneration(config).to(getattr(torch, dtype)))
    return T5Backbone(model, None, name=name)


def _lengths(study: Study, backbone: Backbone) -> Lengths | None:
    """The longest of all tasks, or None where they are not at hand."""
    if backbone.tokenizer is None:
        return None
    resources = Resources({MAIN: study})
    try:
        gym = resources.gym(MAIN)
        settings = [resolve_setting(study, spec, gym) for spec in study.every_setting]
        names = sorted({name for setting in settings for name in (*setting.source, *setting.target)})
        tasks = [encode_task(gym.load(name), backbone.tokenizer, study.text) for name in names]
    except (SoftstartError, OSError):
        return None
    words = [task.label_ids for task in tasks if task.label_ids]
    splits = [rows for t in tasks for rows in (*t.train.values(), *t.dev.values(), t.test)]
    return Lengths(
        max(len(ids) for rows in splits for ids in rows.inputs),
        max(len(ids) for rows in splits for answers in rows.outputs for ids in answers),
        max(len(rows) for rows in splits),
        (max(map(len, words), default=0), max((len(ids) for task in words for ids in task), default=0)),
    )


def _parts(study: Study, backbone: Backbone, lengths: Lengths, device: str) -> Iterator[Part]:
    """What a worker does for a study."""
    methods = resolve_methods(study)
    stack = (study.pack_size, study.prompt.length, backbone.width)
    state = STATE * 4 * stack[0] * stack[1] * stack[2]
    if any(method.kind != "ft" for method in methods):
        config = study.adaptation
        rows = study.pack_size * config.batch_size // config.batch_parts

        def adaptation(tokens: int | None) -> int:
            prompts = torch.empty(stack, dtype=backbone.prompt_dtype, device=META)
            few = _micro(rows, tokens, stack[1] + lengths.text)
            batch = equal_rows(few, lengths.text, lengths.output, runs=stack[0], dropout=config.dropout)
            return state + traced(lambda: run_gradients(backbone, prompts, batch), device).on(device)

        yield _part(
            "adaptation", "adaptation.max_tokens", config.max_tokens, rows, stack, lengths, adaptation
        )

        def evaluation(tokens: int | None) -> int:
            return state + _evaluation(study, backbone, tokens, lengths, device)

        bound = study.evaluation.max_tokens
        all_rows = study.pack_size * lengths.rows
        yield _part("evaluation", "evaluation.max_tokens", bound, all_rows, stack, lengths, evaluation)
    for method in methods:
        if method.meta is not None and hasattr(method.algorithm, "meta_gradient"):
            yield _meta(study, method, backbone, lengths, device)
    if any(method.kind == "ft" for method in methods):
        size = _fine_tuning(study, backbone, lengths, device)
        yield Part("fine-tuning", size, None, None, lambda _: size)


def _part(
    name: str,
    key: str,
    bound: int | None,
    rows: int,
    stack: tuple[int, int, int],
    lengths: Lengths,
    measure: Callable[[int | None], int],
) -> Part:
    whole = rows * (stack[1] + lengths.text)
    return Part(name, measure(bound), key, min(whole, bound or whole), measure)


def _micro(rows: int, tokens: int | None, length: int) -> int:
    """Rows of a micro-batch of the longest rows."""
    return rows if tokens is None else min(rows, max(1, tokens // length))


def _meta(study: Study, method: Method, backbone: Backbone, lengths: Lengths, device: str) -> Part:
    """An outer step, by the algorithm itself."""
    algorithm, config = cast(Algorithm, method.algorithm), method.meta
    assert config is not None
    tasks = 1 if algorithm.data == "mixture" else config.meta_batch
    output = min(lengths.output, config.max_output_tokens or lengths.output)

    def batch(size: int) -> Batch:
        rows = max(1, tasks * size)
        return equal_rows(rows, lengths.text, output, runs=tasks, dropout=config.dropout)

    def step(tokens: int | None) -> int:
        theta = torch.empty(study.prompt.length, backbone.width, dtype=backbone.prompt_dtype, device=META)
        budget = None if config.memory_budget is None else int(config.memory_budget * 2**20)
        loss = PromptObjective(backbone, tokens, budget)
        support = [batch(algorithm.support_size) for _ in range(algorithm.inner_steps)]
        query = batch(algorithm.query_size) if algorithm.query_size else None
        episodes = Episodes(tasks, support, query)

        def do() -> None:
            meta_gradients(algorithm, loss, {THETA: theta, **further(algorithm, theta)}, episodes)

        return traced(do, device).on(device)

    rows = tasks * max(algorithm.support_size, algorithm.query_size)
    whole = rows * (study.prompt.length + lengths.text)
    bound = config.max_tokens
    return Part(
        f"meta-training {method.name}", step(bound), "meta.max_tokens", min(whole, bound or whole), step
    )


def _evaluation(study: Study, backbone: Backbone, tokens: int | None, lengths: Lengths, device: str) -> int:
    """Ranking, or generating: one pass over the texts without a graph, and what a search keeps."""
    rows = _micro(study.pack_size * lengths.rows, tokens, study.prompt.length + lengths.text)
    prompts = torch.empty(1, study.prompt.length, backbone.width, dtype=backbone.prompt_dtype, device=META)
    batch = equal_rows(rows, lengths.text, 1)
    with torch.no_grad():
        once = traced(lambda: backbone.nll(prompts, batch), device).on(device)
    ranked = 0
    if study.evaluation.scoring == "rank" and lengths.labels[0]:
        words = torch.full((rows, *lengths.labels), 3)
        ranked = traced(lambda: backbone.rank(prompts, batch, words, tokens), device).on(device)
    how, config = study.evaluation.decoding, backbone.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
    inner = heads * (width or config.hidden_size // config.num_attention_heads)
    layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    beams, text = how.num_beams, study.prompt.length + lengths.text
    new = min(how.max_new_tokens, lengths.output + 2)
    # Greedy decoding of T5 keeps no keys and values of the text; transformers' searches do, for every beam.
    lean = beams == 1 and getattr(backbone, "lean", False)
    kept = new if lean else new + text
    item = backbone.embedding.weight.element_size()
    searched: int = beams * rows * (2 * layers * kept * inner * item + config.vocab_size * (item + 3 * 4))
    return max(ranked, once + searched)


def _fine_tuning(study: Study, backbone: Backbone, lengths: Lengths, device: str) -> int:
    """A copy of the weights, the best ones (on the CPU), their gradient and a step's activations."""
    twin, weights = backbone.trainable_copy(), weight_bytes(backbone)
    nothing = torch.empty(1, 0, backbone.width, dtype=backbone.prompt_dtype, device=META)
    config = study.finetuning
    rows = max(1, config.batch_size // config.batch_parts)
    batch = equal_rows(rows, lengths.text, lengths.output, dropout=config.dropout)
    peak = traced(lambda: twin.nll(nothing, batch, seed=batch.seed)[0].sum().backward(), device).on(device)
    return weights * (1 if device == "cuda" else 2) + peak
