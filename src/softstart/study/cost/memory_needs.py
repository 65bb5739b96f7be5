"""How much memory a worker needs for each kind of work in a study, and how to cut what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from softstart.algorithms import THETA, Algorithm, Episodes, further, meta_gradients
from softstart.backbone import Backbone, Batch, T5Backbone, load_backbone
from softstart.backbone.devices import status_bytes
from softstart.backbone.loading import recompute_layers
from softstart.backbone.memory_model import META, equal_rows, traced, weight_bytes
from softstart.backbone.shapes import published, untie
from softstart.errors import SoftstartError
from softstart.study.declare.spec import MAIN, Study, resolve_methods
from softstart.study.declare.study_file import variants_of
from softstart.study.declare.task_lists import resolve_setting
from softstart.study.run.resources import Resources
from softstart.training.baselines.weights import WeightTuning
from softstart.training.configs import bound_of
from softstart.training.evaluation import SCORINGS
from softstart.training.gradients import run_gradients, weight_loss
from softstart.training.methods import Method
from softstart.training.objective import PromptObjective

STATE = 4
"""Stacks of prompts besides the gradient: in training, the best, and AdamW's two (Adafactor keeps less)."""


NOMINAL_ROWS = 32
"""Train rows of a task, where prompts are as long as all of them."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest text and output, and the rows of the largest dev or test set."""

    text: int
    output: int
    rows: int = 1000
    labels: tuple[int, int] = (4, 8)
    """The most label words of a task, and the tokens of the longest; usual sizes where tasks are unknown."""


@dataclass(frozen=True)
class WorkPeak:
    """One kind of work: its peak in bytes besides the weights, and the option that cuts it smaller."""

    name: str
    bytes: int
    key: str | None
    tokens: int | None
    measure: Callable[[int | None], int]

    def cut(self, room: int) -> int | None:
        """The largest bound on tokens that fits, by halving; None if even one row is too large."""
        if not self.key or not self.tokens or self.measure(1) > room:
            return None
        tokens = self.tokens // 2
        while tokens > 1 and self.measure(tokens) > room:
            tokens //= 2
        return max(1, tokens)


@dataclass(frozen=True)
class Needs:
    """Bytes that a worker needs: before any work (``base``), for the weights, and for each kind of work."""

    device: str
    base: int
    weights: int
    peaks: Sequence[WorkPeak]
    known: bool
    """Whether lengths are those of the tasks; otherwise they are the longest that the study allows."""

    @property
    def total(self) -> int:
        """The peak."""
        return self.base + self.weights + max((peak.bytes for peak in self.peaks), default=0)

    def check(self, memory: int, workers: int = 1) -> None:
        """Refuse what does not fit, and suggest how to cut it.

        Args:
            memory: bytes of the device.
            workers: how many workers share them, as if they had no memory in common.

        Raises:
            SoftstartError: something does not fit.
        """
        room = memory // workers - self.base - self.weights
        large = [peak for peak in self.peaks if peak.bytes > room]
        if not large:
            return
        what = f"a worker needs {gib(self.total)} on {self.device}, which has {gib(memory)}"
        if workers > 1:
            what += f" for {workers} of them"
            if few := memory // self.total:
                raise SoftstartError(what, fix=f"Take fewer: --workers {few}")
        bounds = {peak: peak.cut(room) for peak in large}
        if stuck := [peak.name for peak, bound in bounds.items() if bound is None]:
            raise SoftstartError(
                f"{what}; {', '.join(stuck)} cannot be cut to fit",
                fix="Use dtype bfloat16, gradient_checkpointing: true (not with second order), a smaller "
                "backbone, shorter inputs, or a larger device.",
            )
        smallest: dict[str, int] = {}
        for peak, bound in bounds.items():
            if peak.key and bound:
                smallest[peak.key] = min(bound, smallest.get(peak.key, bound))
        cuts = " ".join(f"--set {key}={bound}" for key, bound in smallest.items())
        raise SoftstartError(what, fix=f"It fits, with the same numbers, in smaller batches: {cuts}")


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.1f} GiB"


def study_needs(study: Study, device: str = "cpu", memory: int | None = None, *, data: bool = True) -> Needs:
    """The most memory that a worker needs; the backbone's weights are not loaded.

    Args:
        study: the study, all its variants included.
        device: ``cpu`` or ``cuda``.
        memory: bytes of the device, which decide what meta-training keeps; by default those of this machine.
        data: read the tasks for the lengths of their texts; otherwise take the longest that are allowed.

    Raises:
        SoftstartError: the configuration of a backbone is not on this machine.
    """
    resources = Resources(variants_of(study), load=shape_of)
    resources.backbone(MAIN)
    base = 0 if device == "cuda" else status_bytes("VmRSS")
    peaks: dict[str, WorkPeak] = {}
    known, done = data, set[str]()
    for variant, each in resources.studies.items():
        lengths = _lengths(resources, variant) if data else None
        known = known and lengths is not None
        most = Lengths(each.text.max_input_tokens, each.text.max_output_tokens)
        for peak in _peaks(resources, variant, lengths or most, device, memory, done):
            if peak.name not in peaks or peak.bytes > peaks[peak.name].bytes:
                peaks[peak.name] = peak
    # A worker keeps what it has loaded.
    weights = sum(map(weight_bytes, resources.backbones()))
    return Needs(device, base, weights, list(peaks.values()), known)


def shape_of(
    name: str,
    dtype: str,
    *,
    revision: str | None = None,
    placement: str = "prefix",
    prompt_kind: str = "embeddings",
    gradient_checkpointing: bool = False,
    **_where: object,
) -> Backbone:
    """A backbone without weights, as ``load_backbone`` would load it; published sizes of T5 need no file.

    Raises:
        SoftstartError: its configuration is not on this machine.
    """
    options: dict[str, Any] = {"placement": placement, "gradient_checkpointing": gradient_checkpointing}
    options |= {"prompt_kind": prompt_kind}
    try:
        return load_backbone(name, dtype=dtype, revision=revision, weights=False, **options)
    except SoftstartError:
        config = published(name)
        if config is None:
            raise
    from transformers import T5ForConditionalGeneration

    with torch.device(META):
        model = untie(T5ForConditionalGeneration(config).to(getattr(torch, dtype)))
    if gradient_checkpointing:
        recompute_layers(model)
    backbone = T5Backbone(model, None, name=name, placement=placement)
    backbone.prompt_kind = prompt_kind
    return backbone


def _lengths(resources: Resources, variant: str) -> Lengths | None:
    """The longest texts of all tasks; None if they cannot be read."""
    if resources.backbone(variant).tokenizer is None:
        return None
    study = resources.studies[variant]
    try:
        gym = resources.gym(variant)
        settings = [resolve_setting(study, spec, gym) for spec in study.every_setting]
        used = {(name, True) for setting in settings for name in setting.source}
        used |= {(name, False) for setting in settings for name in setting.target}
        tasks = [resources.encoded(variant, name, source=source) for name, source in sorted(used)]
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


def _peaks(
    resources: Resources, variant: str, lengths: Lengths, device: str, memory: int | None, done: set[str]
) -> Iterator[WorkPeak]:
    """The kinds of work of a variant, without those ``done``, which need the same memory."""

    def new(*what: object) -> bool:
        before = len(done)
        done.add(repr((lengths, *what)))
        return len(done) > before

    study, backbone = resources.studies[variant], resources.backbone(variant)
    methods = resolve_methods(study)
    stack = (study.pack_size, _prompt_rows(resources, variant, lengths), backbone.kind.width)
    state = STATE * 4 * stack[0] * stack[1] * stack[2]
    prompts = any(method.unpacked is None for method in methods)
    if prompts and new(id(backbone), stack, study.adaptation):
        config = study.adaptation
        rows = study.pack_size * config.batch_size // config.batch_parts

        def adaptation(tokens: int | None) -> int:
            empty = torch.empty(stack, dtype=backbone.prompt_dtype, device=META)
            few = _micro(rows, tokens, stack[1] + lengths.text)
            batch = equal_rows(few, lengths.text, lengths.output, runs=stack[0], dropout=config.dropout)
            return state + traced(lambda: run_gradients(backbone, empty, batch, loss=config.loss), device).on(
                device
            )

        yield _peak(
            "adaptation",
            "adaptation.max_tokens",
            bound_of(config, torch.device(device), memory or 1),
            rows,
            stack,
            lengths,
            adaptation,
        )
    if prompts and new(id(backbone), stack, study.evaluation):
        yield _evaluation("evaluation", study, backbone, stack, state, lengths, device)
    for method in methods:
        if method.meta is None or not hasattr(method.algorithm, "meta_gradient"):
            continue
        if new(id(backbone), stack[1], method):
            yield _meta(study, method, backbone, lengths, device, memory)
    for method in methods:
        if isinstance(method.baseline, WeightTuning):
            tuned = resources.backbone(variant, method.baseline.other_weights)
            if new(id(tuned), method.baseline, study.evaluation):
                yield from _fine_tuning(study, method.baseline, tuned, lengths, device)


def _prompt_rows(resources: Resources, variant: str, lengths: Lengths) -> int:
    """The rows of the longest prompt, demonstrations included: as many as the longest texts take, at most."""
    study, window = resources.studies[variant], resources.backbone(variant).window
    most = NOMINAL_ROWS * (lengths.text + lengths.output)
    room = most if window is None else max(1, min(most, window - lengths.text - lengths.output))
    specs = [m.begins(study.prompt) for m in resolve_methods(study) if m.unpacked is None]
    rows = [s.length + (room if s.demonstrations == "all" else s.demonstrations or 0) for s in specs]
    return max(rows, default=study.prompt.length)


def _peak(
    name: str,
    key: str,
    bound: int | None,
    rows: int,
    stack: tuple[int, int, int],
    lengths: Lengths,
    measure: Callable[[int | None], int],
) -> WorkPeak:
    whole = rows * (stack[1] + lengths.text)
    return WorkPeak(name, measure(bound), key, min(whole, bound or whole), measure)


def _micro(rows: int, tokens: int | None, length: int) -> int:
    """Rows of a micro-batch of the longest rows."""
    return rows if tokens is None else min(rows, max(1, tokens // length))


def _meta(
    study: Study, method: Method, backbone: Backbone, lengths: Lengths, device: str, memory: int | None
) -> WorkPeak:
    """An outer step, by the algorithm itself."""
    algorithm, config = cast(Algorithm, method.algorithm), method.meta
    assert config is not None
    tasks = 1 if algorithm.data == "mixture" else config.meta_batch
    output = min(lengths.output, config.max_output_tokens or lengths.output)

    def batch(size: int) -> Batch:
        rows = max(1, tasks * size)
        return equal_rows(rows, lengths.text, output, runs=tasks, dropout=config.dropout)

    def step(tokens: int | None) -> int:
        theta = torch.empty(
            study.prompt.length, backbone.kind.width, dtype=backbone.prompt_dtype, device=META
        )
        shown = method.context(study.prompt)
        budget = None if config.memory_budget is None else int(config.memory_budget * 2**20)
        loss = PromptObjective(backbone, tokens, budget, config.loss)
        loss.graphs.memory = memory
        support = [batch(algorithm.support_size) for _ in range(algorithm.inner_steps)]
        query = batch(algorithm.query_size) if algorithm.query_size else None
        context = theta.new_empty(tasks, shown, backbone.width) if shown else None
        episodes = Episodes(tasks, support, query, context)

        def do() -> None:
            meta_gradients(algorithm, loss, {THETA: theta, **further(algorithm, theta, tasks)}, episodes)

        return traced(do, device).on(device)

    rows = tasks * max(algorithm.support_size, algorithm.query_size)
    whole = rows * (study.prompt.length + lengths.text)
    bound = bound_of(config, torch.device(device), memory or 1)
    return WorkPeak(
        f"meta-training {method.name}", step(bound), "meta.max_tokens", min(whole, bound or whole), step
    )


def _evaluation(
    name: str,
    study: Study,
    backbone: Backbone,
    stack: tuple[int, int, int],
    resident: int,
    lengths: Lengths,
    device: str,
) -> WorkPeak:
    """Ranking or generating: one pass over the texts without a graph, and what a search keeps."""
    decoding, config, text = study.evaluation.decoding, backbone.model.config, stack[1] + lengths.text
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
    inner = heads * (width or config.hidden_size // config.num_attention_heads)
    layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    beams, new = decoding.num_beams, decoding.max_new_tokens
    if study.evaluation.bounded:
        new = min(new, lengths.output + 2)
    # Greedy decoding of T5 keeps no keys and values of the text; transformers' searches do, for every beam.
    lean = beams == 1 and getattr(backbone, "lean", False)
    kept = new if lean else new + text
    item = backbone.embedding.weight.element_size()
    searched: int = beams * (2 * layers * kept * inner * item + config.vocab_size * (item + 3 * 4))

    def measure(tokens: int | None) -> int:
        rows = _micro(stack[0] * lengths.rows, tokens, text)
        prompts = torch.empty(1, *stack[1:], dtype=backbone.prompt_dtype, device=META)
        batch = equal_rows(rows, lengths.text, 1)
        with torch.no_grad():
            once = traced(lambda: backbone.nll(prompts, batch), device).on(device)
        ranked = 0
        if SCORINGS.find(study.evaluation.scoring).ranks and lengths.labels[0]:
            count, length = lengths.labels
            words = torch.arange(count * length).view(1, count, length)  # they share nothing
            of = torch.zeros(rows, dtype=torch.long)
            ranked = traced(lambda: backbone.rank(prompts, batch, words, tokens, of), device).on(device)
        return resident + max(ranked, once + rows * searched)

    bound = study.evaluation.max_tokens
    return _peak(name, "evaluation.max_tokens", bound, stack[0] * lengths.rows, stack, lengths, measure)


def _fine_tuning(
    study: Study, baseline: WeightTuning, backbone: Backbone, lengths: Lengths, device: str
) -> Iterator[WorkPeak]:
    """Steps and evaluations of a copy of the weights; a copy of the best ones is on the CPU."""
    trainable, config = baseline.trainable(), baseline.training
    twin = trainable.copy(backbone)
    copies = weight_bytes(twin) * (1 if device == "cuda" else 2)
    stack = (1, 0, twin.width)
    rows = max(1, config.batch_size // config.batch_parts)
    batch = equal_rows(rows, lengths.text, lengths.output, dropout=config.dropout)
    optimizer = trainable.optimizer(twin.model, 1.0, config.weight_decay)

    def step() -> None:
        for _ in range(min(2, config.batch_parts)):  # the second while there is a gradient of the first
            weight_loss(twin, batch, config.loss).backward()
        optimizer.step()

    size = copies + traced(step, device).on(device)
    optimizer.zero_grad()
    yield WorkPeak(baseline.work, size, None, None, lambda _: size)
    yield _evaluation(f"evaluation of {baseline.work}", study, twin, stack, copies, lengths, device)
