"""Causal models on real rows: what is read once, and PEFT's loops.

The model is SmolLM2 (``softstart backbone fetch smollm2``), or ``micro``, two layers of random weights. Rows
are train rows of twelve classification tasks (or three of long texts) of a gym in CrossFit's format
(``SOFTSTART_SHARED``/data/gym), at their own lengths; without the gym they are rows of the mini gym.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from benchmarks.engine.timing import Absent, Contender

from softstart.backbone import IGNORE, Batch, CausalBackbone, collate, load_backbone
from softstart.errors import SoftstartError
from softstart.gym.sources import open_gym
from softstart.tiny import weights_path
from softstart.training.encoding import EncodedTask, TextFormat, encode_task
from softstart.training.gradients import run_gradients

SHORT = (
    "glue-sst2", "trec", "emo", "emotion", "tweet_eval-sentiment", "tweet_eval-hate", "financial_phrasebank",
    "hate_speech_offensive", "sms_spam", "google_wellformed_query", "sick", "ag_news",
)  # fmt: skip
LONG = ("boolq", "imdb", "ropes")
MINI = ("film_review", "animal_class", "emotion_of_other")
TEXT = TextFormat(template="{input}\nAnswer:", max_input_tokens=256)
ROWS, BOUND, SAMPLE = 8, 16384, 13
PEERS = 4
"""Runs that peers, who train one after the other, are timed on in a round."""
LEARNING_RATE = 1.0
"""Of the Trainer's single step of SGD, whose move is the gradient."""


def gym_folder() -> str:
    """The gym of real tasks, else the mini gym."""
    shared = os.environ.get("SOFTSTART_SHARED")
    real = Path(shared, "data", "gym") if shared else None
    return str(real) if real and real.is_dir() else "mini"


@cache
def model(shape: str) -> CausalBackbone:
    """The backbone of a shape; Absent: it cannot be had."""
    if shape == "micro":
        return _micro()
    try:
        found = load_backbone(shape, device="cpu")
    except SoftstartError as problem:
        raise Absent(f"{shape}: {problem}") from problem
    assert isinstance(found, CausalBackbone)
    return found


def _micro() -> CausalBackbone:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(weights_path())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    return CausalBackbone(LlamaForCausalLM(config).eval(), tokenizer, name="micro")


@cache
def encoded(shape: str, name: str, gym: str) -> EncodedTask:
    """A task of a gym as tokens of a model."""
    return encode_task(open_gym(gym).load(name), model(shape), TEXT)


@dataclass(frozen=True)
class CausalWork:
    """A model, R prompts [P, d], and rows for each."""

    inner_lr: ClassVar[float] = 1e-3
    """Entries of SmolLM2's embeddings are .13 (root mean square): .3 would leave the start far behind, where
    rounding grows a hundredfold in each step."""
    hide_from_higher: ClassVar[bool] = True

    shape: str = "smollm2"
    runs: int = 1
    prompt: int = 20
    long: bool = False
    rows: int = ROWS
    gym: str = "mini"
    placement: str = "prefix"

    @cached_property
    def backbone(self) -> CausalBackbone:
        """The model under the placement of the work."""
        return self.placed(self.placement)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Where rows come from, one task a run."""
        return MINI if self.gym == "mini" else LONG if self.long else SHORT

    def placed(
        self, placement: str, *, once: bool = True, dtype: torch.dtype | None = None
    ) -> CausalBackbone:
        """The same weights under a placement, no text read yet."""
        twin = copy.copy(model(self.shape))
        if dtype is not None:
            twin.model = copy.deepcopy(twin.model).to(dtype)
        twin.keep_texts(None)
        twin.placement, twin.read_once = placement, once
        return twin

    def plain(self, dtype: torch.dtype = torch.float32) -> Any:
        """A frozen copy for a peer."""
        plain = copy.deepcopy(model(self.shape).model).to(dtype)
        for module in plain.modules():
            if type(module).__name__ == "Linear":
                module.__class__ = torch.nn.Linear
        return plain.requires_grad_(False)

    def picked(self, run: int, seed: int = 0) -> list[tuple[list[int], list[int]]]:
        """Text and output of the rows of a run; another ``seed`` gives other rows where the task has more."""
        task = encoded(self.shape, self.tasks[run % len(self.tasks)], self.gym)
        train = task.train[SAMPLE]
        number = run // len(self.tasks) + seed
        chosen = [train.trainable[(number * self.rows + i) % len(train.trainable)] for i in range(self.rows)]
        return train.pick(chosen, np.random.default_rng(run))

    def joined(self, runs: list[int], seed: int = 0) -> Batch:
        """The rows of several runs in one batch."""
        mine = [pair for run in runs for pair in self.picked(run, seed)]
        owners = [n for n, _ in enumerate(runs) for _ in range(self.rows)]
        return collate([t for t, _ in mine], [o for _, o in mine], owners, pad=0)

    def batch(self, run: int, seed: int = 0) -> Batch:
        """The rows of one run."""
        return self.joined([run], seed)

    @cached_property
    def starts(self) -> torch.Tensor:
        """[R, P, d]."""
        g = torch.Generator().manual_seed(1)
        rows = torch.randint(5, 900, (self.runs, self.prompt), generator=g)
        return self.backbone.vocabulary[rows].float().clone()

    @staticmethod
    def loss(model: Any, prompt: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of transformers' own pass, the prompt joined to the embeddings by hand."""
        given = joined(batch)
        text = model.get_input_embeddings()(given["input_ids"])
        embeds = torch.cat((prompt.expand(len(batch), -1, -1), text), 1)
        mask = torch.cat(
            (given["attention_mask"].new_ones(len(batch), len(prompt)), given["attention_mask"]), 1
        )
        labels = torch.cat((given["labels"].new_full((len(batch), len(prompt)), IGNORE), given["labels"]), 1)
        loss: torch.Tensor = model(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss
        return loss


def softstart(
    work: CausalWork, placement: str, *, once: bool = True, dtype: torch.dtype | None = None
) -> Contender:
    """All runs as one pack; texts are kept from one round to the next, as from one step to the next."""
    backbone = work.placed(placement, once=once, dtype=dtype)
    batch = work.joined(list(range(work.runs)))
    return lambda: run_gradients(backbone, work.starts, batch, BOUND)[1]


def tuned(work: CausalWork, dtype: torch.dtype = torch.float32) -> tuple[Any, torch.nn.Parameter]:
    """PEFT's PromptTuning and its prompt."""
    try:
        from peft import PromptTuningConfig, get_peft_model
    except ImportError as problem:
        raise Absent("PEFT is not installed: pip install 'softstart[bench]'") from problem
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=work.prompt)
    made = get_peft_model(work.plain(dtype), config)
    return made, made.prompt_encoder["default"].embedding.weight


def peft_loop(work: CausalWork, dtype: torch.dtype = torch.float32) -> Contender:
    """PEFT's PromptTuning, one run after the other, rows padded to the longest of a batch."""
    made, prompt = tuned(work, dtype)

    def step() -> torch.Tensor:
        gradients = []
        for run in range(min(work.runs, PEERS)):
            prompt.data.copy_(work.starts[run])
            prompt.grad = None
            made(**joined(work.batch(run))).loss.backward()
            gradients.append(prompt.grad.float().clone())
        return torch.stack(gradients)

    return step


def peft_trainer(work: CausalWork) -> Contender:
    """PEFT's PromptTuning with transformers' Trainer, one step; building it is not avoidable between runs."""
    import tempfile

    made, prompt = tuned(work)
    try:
        import accelerate  # noqa: F401
        from transformers import PrinterCallback, Trainer, TrainingArguments
    except ImportError as problem:
        raise Absent(f"transformers.Trainer: {problem}") from problem
    arguments = TrainingArguments(
        tempfile.mkdtemp(), max_steps=1, per_device_train_batch_size=work.rows, learning_rate=LEARNING_RATE,
        optim="sgd", lr_scheduler_type="constant", max_grad_norm=0.0, use_cpu=True, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip

    def collator(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def step() -> torch.Tensor:
        gradients = []
        for run in range(min(work.runs, PEERS)):
            prompt.data.copy_(work.starts[run])
            given = joined(work.batch(run))
            rows = [{name: given[name][i] for name in given} for i in range(work.rows)]
            trainer = Trainer(model=made, args=arguments, train_dataset=rows, data_collator=collator)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            gradients.append((work.starts[run] - prompt.detach()) / LEARNING_RATE)
        return torch.stack(gradients)

    return step


def joined(batch: Batch) -> dict[str, torch.Tensor]:
    """Text and output in one row, padded on the right, as a collator for causal models does it."""
    texts, outputs = batch.attention_mask.sum(1).tolist(), (batch.labels != IGNORE).sum(1).tolist()
    length = max(t + o for t, o in zip(texts, outputs, strict=True))
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE)
    for i, (t, o) in enumerate(zip(texts, outputs, strict=True)):
        ids[i, :t], ids[i, t : t + o] = batch.input_ids[i, :t], batch.labels[i, :o]
        labels[i, t : t + o], mask[i, : t + o] = batch.labels[i, :o], 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def contenders(work: CausalWork) -> dict[str, Any]:
    """Who computes a gradient of every run, to be made; the answers of PEFT are those of the prefix."""
    half = torch.bfloat16
    return {
        "prefix, prompts read once": lambda: softstart(work, "prefix"),
        "prefix, rows read whole": lambda: softstart(work, "prefix", once=False),
        "PEFT, plain loop": lambda: peft_loop(work),
        "PEFT, HF Trainer": lambda: peft_trainer(work),
        "suffix, texts read once": lambda: softstart(work, "suffix"),
        "prefix, bfloat16": lambda: softstart(work, "prefix", dtype=half),
        "suffix, bfloat16": lambda: softstart(work, "suffix", dtype=half),
        "PEFT, plain loop, bfloat16": lambda: peft_loop(work, half),
    }


def cases(
    shape: str, packs: list[int], prompts: list[int], *, long: bool
) -> Iterator[tuple[str, CausalWork]]:
    """Every case of a gradient step with its heading."""
    gym = gym_folder()
    source = "rows of the mini gym" if gym == "mini" else "real rows of long texts" if long else "real rows"
    for prompt in [20] if long else prompts:
        for runs in packs:
            yield f"{source}, P = {prompt}, {runs} runs of 8", CausalWork(shape, runs, prompt, long, gym=gym)
