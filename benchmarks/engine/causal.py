"""A gradient step of each of R runs of a causal model on real rows: what is read once, and PEFT's loops.

Rows are train rows of twelve classification tasks (or three of long texts), 8 a run, at their own
lengths. The model is SmolLM2 (``softstart backbone fetch smollm2``). Without the gym's files
(``SOFTSTART_SHARED``) the rows are random tokens of the lengths that those tasks have.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from benchmarks.engine.timing import Absent, Contender

from softstart.backbone import IGNORE, Batch, CausalBackbone, collate, load_backbone
from softstart.errors import SoftstartError
from softstart.gym import load_task
from softstart.training.encoding import TextFormat, encode_task
from softstart.training.objective import run_gradients

SHORT = (
    "glue-sst2", "trec", "emo", "emotion", "tweet_eval-sentiment", "tweet_eval-hate", "financial_phrasebank",
    "hate_speech_offensive", "sms_spam", "google_wellformed_query", "sick", "ag_news",
)  # fmt: skip
LONG = ("boolq", "imdb", "ropes")
TEXT = TextFormat(template="{input}\nAnswer:", max_input_tokens=256)
ROWS, BOUND = 8, 16384
PEERS = 4
"""Runs that peers, who train one after the other, are timed on in a round."""


@dataclass(frozen=True)
class CausalWork:
    """A model, R prompts [P, d], and 8 rows for each."""

    runs: int = 1
    prompt: int = 20
    long: bool = False
    gym: Path | None = None

    @cached_property
    def backbone(self) -> CausalBackbone:
        """SmolLM2."""
        return model()

    def placed(
        self, placement: str, *, once: bool = True, dtype: torch.dtype | None = None
    ) -> CausalBackbone:
        """The same weights under a placement."""
        twin = copy.copy(self.backbone)
        if dtype is not None:
            twin.model = copy.deepcopy(twin.model).to(dtype)
        twin._once = None
        twin.placement, twin.read_once = placement, once
        return twin

    @cached_property
    def rows(self) -> list[tuple[list[int], list[int]]]:
        """Text and output of every row, run after run."""
        names = LONG if self.long else SHORT
        rows: list[tuple[list[int], list[int]]] = []
        for run in range(self.runs):
            if self.gym is None:
                rng = random.Random(run)
                mean = 160 if self.long else 36
                rows += [
                    (
                        [rng.randrange(3, 40000) for _ in range(rng.randint(mean // 3, 5 * mean // 3))],
                        [500, 501, 2],
                    )
                    for _ in range(ROWS)
                ]
                continue
            task = encode_task(load_task(names[run % len(names)], self.gym), self.backbone, TEXT)
            train = task.train[13]
            picked = train.trainable[run // len(names) * ROWS :][:ROWS]
            rows += train.pick(picked, random.Random(run))
        return rows

    def batch(self, runs: list[int]) -> Batch:
        """The rows of some runs."""
        mine = [self.rows[r * ROWS + i] for r in runs for i in range(ROWS)]
        owners = [n for n, _ in enumerate(runs) for _ in range(ROWS)]
        return collate([t for t, _ in mine], [o for _, o in mine], owners, pad=0)

    @cached_property
    def starts(self) -> torch.Tensor:
        """[R, P, d]."""
        g = torch.Generator().manual_seed(1)
        rows = torch.randint(5, 900, (self.runs, self.prompt), generator=g)
        return self.backbone.vocabulary[rows].float().clone()


_MODEL: list[CausalBackbone] = []


def model() -> CausalBackbone:
    """SmolLM2 from the cache, or from where it can be had; Absent: it cannot."""
    if not _MODEL:
        try:
            found = load_backbone("smollm2", device="cpu")
        except SoftstartError as problem:
            raise Absent(f"SmolLM2: {problem}") from problem
        assert isinstance(found, CausalBackbone)
        _MODEL.append(found)
    return _MODEL[0]


def softstart(work: CausalWork, placement: str, *, once: bool = True, half: bool = False) -> Contender:
    """All runs as one pack."""
    backbone = work.placed(placement, once=once, dtype=torch.bfloat16 if half else None)
    batch = work.batch(list(range(work.runs)))
    return lambda: run_gradients(backbone, work.starts, batch, BOUND)[1]


def peft_loop(work: CausalWork) -> Contender:
    """PEFT's PromptTuning, one run after the other, rows padded to the longest of a batch."""
    try:
        from peft import PromptTuningConfig, get_peft_model
    except ImportError as problem:
        raise Absent("PEFT is not installed: pip install 'softstart[bench]'") from problem
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=work.prompt)
    plain = copy.deepcopy(work.backbone.model)
    for module in plain.modules():
        if type(module).__name__ == "Linear":
            module.__class__ = torch.nn.Linear
    tuned = get_peft_model(plain, config)
    prompt = tuned.prompt_encoder["default"].embedding.weight

    def step() -> torch.Tensor:
        gradients = []
        for run in range(min(work.runs, PEERS)):
            prompt.data.copy_(work.starts[run])
            prompt.grad = None
            tuned(**_joined(work.batch([run]))).loss.backward()
            gradients.append(prompt.grad.clone())
        return torch.stack(gradients)

    return step


def _joined(batch: Batch) -> dict[str, Any]:
    """Text and output in one row, padded on the right, as a collator for causal models does it."""
    texts, outputs = batch.attention_mask.sum(1).tolist(), (batch.labels != IGNORE).sum(1).tolist()
    length = max(t + o for t, o in zip(texts, outputs, strict=True))
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for i, (t, o) in enumerate(zip(texts, outputs, strict=True)):
        ids[i, :t], ids[i, t : t + o] = batch.input_ids[i, :t], batch.labels[i, :o]
        labels[i, t : t + o], mask[i, : t + o] = batch.labels[i, :o], 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def contenders(work: CausalWork) -> dict[str, Contender]:
    """Everybody; the answers of PEFT are those of the prefix."""
    made = {
        "prefix, prompts read once": softstart(work, "prefix"),
        "prefix, rows read whole": softstart(work, "prefix", once=False),
        "PEFT, plain loop": peft_loop(work),
        "suffix, texts read once": softstart(work, "suffix"),
    }
    if torch.backends.mkldnn.is_available():
        made["suffix, bfloat16"] = softstart(work, "suffix", half=True)
    return made


def cases(packs: list[int], prompts: list[int]) -> Iterator[tuple[str, CausalWork]]:
    """Every case with its heading."""
    shared = os.environ.get("SOFTSTART_SHARED")
    gym = Path(shared, "data", "gym") if shared and Path(shared, "data", "gym").is_dir() else None
    source = "real rows" if gym else "random rows"
    for prompt in prompts:
        for runs in packs:
            yield f"{source}, P = {prompt}, {runs} runs of 8", CausalWork(runs, prompt, gym=gym)
    yield f"{source} of long texts, P = 20, 1 run of 8", CausalWork(1, 20, long=True, gym=gym)
