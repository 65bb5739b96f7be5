"""Pretrain the embedded model from scratch: seeded, resumable, with a manifest next to the weights."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, T5ForConditionalGeneration

from softstart.errors import SoftstartError
from softstart.storage.files import atomic, check_output_folder
from softstart.tiny import batches, probes
from softstart.tiny import tokenizer as tokenization
from softstart.tiny.model import SHAPE, build_model
from softstart.tiny.optimizer import ScaledAdam
from softstart.tiny.world import World, world

WARMUP, HOLD = 0.01, 0.4  # shares of the tokens
CURRICULUM = 0.1  # share of the tokens in which the first kinds of claims prevail
STATE = "training.safetensors"
MANIFEST = "manifest.json"

Log = Callable[[str], object]


@dataclass(frozen=True)
class Recipe:
    """What measured curves decided; the defaults are those of the shipped model."""

    shape: dict[str, int] = field(default_factory=lambda: dict(SHAPE))
    exercise_share: float = 0.5
    """Share of the batches that ask or verify; the others are plain documents."""
    match_content: bool = True
    """Start attention as a matcher of equal words, see ``model.py``."""
    peak: float = 6e-3
    """Highest learning rate."""


def learning_rate(progress: float, peak: float = Recipe.peak) -> float:
    """Warm up, hold, then fall linearly to (almost) zero; ``progress`` is the share of tokens seen."""
    if progress < WARMUP:
        return peak * max(progress / WARMUP, 0.01)
    return peak * min(1.0, max((1 - progress) / (1 - HOLD), 0.003))


def pretrain(
    out: Path,
    *,
    tokens: int,
    seed: int = 0,
    threads: int = 1,
    resume: bool = True,
    log: Log = print,
    recipe: Recipe | None = None,
    every_seconds: float = 180,
    probe_every: float = 0.1,
    stop_after: int | None = None,
) -> None:
    """Train the tiny model on ``tokens`` tokens and leave it in ``out`` for ``from_pretrained``.

    A killed run continues from its last checkpoint (written every ``every_seconds``); a finished run is
    left alone. From the first checkpoint on, the folder holds a loadable model. ``stop_after`` ends a run
    after that many steps as if it were killed, for tests.
    """
    torch.set_num_threads(threads)
    run = _Run(out, tokens, seed, resume, log, recipe or Recipe())
    if run.done:
        log(f"{out}: already trained on {run.tokens:,} tokens")
        return
    saved, started, probed = time.monotonic(), run.step, run.tokens / tokens
    for inputs in run.batches():
        run.train(inputs)
        progress = run.tokens / tokens
        if progress - probed >= probe_every or progress >= 1:
            probed = progress
            run.probe()
        if stop_after is not None and run.step - started >= stop_after:
            run.save()
            return
        if time.monotonic() - saved > every_seconds:
            run.save()
            saved = time.monotonic()
    run.finish()


def _ours(folder: Path) -> bool:
    """Whether a folder holds a model of this module, a checkpoint of it, or the tokenizer it begins with."""
    names = {path.name for path in folder.iterdir()}
    if names <= {"tokenizer.json", "tokenizer_config.json"}:
        return True
    with suppress(OSError, ValueError, AttributeError):
        if {"seen", "code", "probes"} <= json.loads((folder / MANIFEST).read_text(encoding="utf-8")).keys():
            return True
    with suppress(OSError, SafetensorError), safe_open(folder / STATE, "pt") as file:
        return "about" in (file.metadata() or {})
    return False


class _Run:
    """The state of one pretraining run: model, optimizer and counters, saved and loaded together."""

    def __init__(self, out: Path, total: int, seed: int, resume: bool, log: Log, recipe: Recipe) -> None:
        self.out, self.total, self.seed, self.log, self.recipe = out, total, seed, log, recipe
        self.w: World = world(0)
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.curve: list[dict[str, Any]] = []
        self.probes: dict[str, Any] = {}
        self.recent: list[float] = []
        self.code = code_digest()
        check_output_folder(out, _ours)
        try:
            out.mkdir(parents=True, exist_ok=True)
            tokenization.save(tokenization.build(self.w), out)
        except OSError as error:
            raise SoftstartError(
                f"cannot write: {error}", where=str(out), fix="Choose another --out."
            ) from error
        self.tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
        self.model: T5ForConditionalGeneration = build_model(
            self.tokenizer.get_vocab_size(), seed, match_content=recipe.match_content, **recipe.shape
        )
        self.model.train()
        self.optimizer = ScaledAdam(list(self.model.parameters()))
        self.done = resume and self._finished()
        if resume and not self.done and (out / STATE).is_file():
            self._load()
        self.clock, self.reported = time.monotonic(), time.monotonic()
        self.start_tokens = self.tokens

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be continued."""
        return {"tokens": self.total, "seed": self.seed, **asdict(self.recipe)}

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The remaining batches: a function of the seed and the step only."""
        while self.tokens < self.total:
            index, skip = divmod(self.step, batches.GROUP)
            # by the group's index, not by tokens seen: resuming inside a group draws the same documents
            early = index * batches.GROUP * _TOKENS_PER_STEP < CURRICULUM * self.total
            share = self.recipe.exercise_share
            group = batches.group(self.w, self.tokenizer, self.seed, index, early=early, exercise_share=share)
            for inputs in group[skip:]:
                yield inputs
                if self.tokens >= self.total:
                    return

    def train(self, inputs: dict[str, Tensor]) -> None:
        """One step."""
        loss = self.model(**inputs).loss
        loss.backward()
        self.optimizer.step(learning_rate(self.tokens / self.total, self.recipe.peak))
        self.step += 1
        self.tokens += int(inputs["attention_mask"].sum() + (inputs["labels"] != -100).sum())
        self.recent.append(float(loss.detach()))
        if time.monotonic() - self.reported > 20:
            self.report()

    def report(self) -> None:
        """Log one line of progress."""
        self.reported = time.monotonic()
        speed = (self.tokens - self.start_tokens) / (self.reported - self.clock)
        left = max(0, self.total - self.tokens) / max(speed, 1)
        self.log(
            f"step {self.step:,}  {self.tokens / 1e6:.2f}M of {self.total / 1e6:.2f}M tokens  "
            f"loss {sum(self.recent) / len(self.recent):.3f}  {speed:,.0f} tokens/s  "
            f"{int(left // 60)} min {int(left % 60):02d} s left"
        )
        self.recent.clear()

    def probe(self) -> None:
        """Measure the model and add a point to the curve."""
        loss = probes.dev_loss(self.model, self.tokenizer, self.w)
        self.probes = probes.probe(self.model, self.tokenizer, self.w)
        means = {family: values["mean"] for family, values in self.probes.items()}
        self.curve.append({"step": self.step, "tokens": self.tokens, "dev_loss": loss, "probes": means})
        self.log(f"dev loss {loss}  probes {means}")
        self.log(
            "  "
            + "  ".join(
                f"{k} {v:.2f}" for k, v in {**self.probes["claims"], **self.probes["answers"]}.items()
            )
        )

    def save(self) -> None:
        """Write a checkpoint to continue from and the model as it is."""
        tensors = {
            f"model.{k}": v
            for k, v in self.model.state_dict().items()
            if not k.endswith("embed_tokens.weight")
        }
        tensors |= self.optimizer.state()
        seconds = self.seconds + time.monotonic() - self.clock
        about = {**self.settings, "step": self.step, "seen": self.tokens, "seconds": seconds}
        about |= {"curve": self.curve, "probes": self.probes, "code": self.code}
        with atomic(self.out / STATE) as path:
            save_file(tensors, path, metadata={"about": json.dumps(about)})
        self.export(finished=False)

    def _load(self) -> None:
        path = self.out / STATE
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["about"])
        if {k: about.get(k) for k in self.settings} != self.settings:
            raise SoftstartError(
                "the checkpoint belongs to a run with other settings",
                where=str(path),
                fix="Use the same settings, another --out, or --no-resume to start over.",
            )
        if about["code"] != self.code:
            self.log("note: the code has changed since this run began")
        tensors = load_file(path)
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(weights, strict=False)
        self.optimizer.load(tensors, about["step"])
        self.step, self.tokens, self.seconds = about["step"], about["seen"], about["seconds"]
        self.curve, self.probes, self.code = about["curve"], about["probes"], about["code"]
        self.log(f"continuing at step {self.step:,}, {self.tokens / 1e6:.2f}M tokens")

    def _finished(self) -> bool:
        try:
            manifest = json.loads((self.out / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        same = all(manifest.get(k) == v for k, v in self.settings.items())
        self.tokens = manifest.get("seen", 0) if same and manifest.get("finished") else 0
        return bool(same and manifest.get("finished"))

    def export(self, *, finished: bool) -> None:
        """Write the model for ``from_pretrained``, and the manifest."""
        tensors = {
            k: v.contiguous()
            for k, v in self.model.state_dict().items()
            if not k.endswith("embed_tokens.weight")
        }
        self.model.config.architectures = ["T5ForConditionalGeneration"]
        self.model.config.save_pretrained(self.out)
        GenerationConfig(decoder_start_token_id=0, pad_token_id=0, eos_token_id=1).save_pretrained(self.out)
        weights = self.out / "model.safetensors"
        with atomic(weights) as path:
            save_file(tensors, path, metadata={"format": "pt"})
        manifest = {
            **self.settings,
            "finished": finished,
            "steps": self.step,
            "seen": self.tokens,
            "seconds": round(self.seconds + time.monotonic() - self.clock),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "sha256": {
                name: file_digest(self.out / name) for name in ("model.safetensors", "tokenizer.json")
            },
            "code": self.code,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
            },
            "probes": self.probes,
            "curve": self.curve,
        }
        with atomic(self.out / MANIFEST) as path:
            path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def finish(self) -> None:
        """The last export; the checkpoint is no longer needed."""
        self.export(finished=True)
        (self.out / STATE).unlink(missing_ok=True)
        self.log(f"done: {self.tokens:,} tokens in {self.step:,} steps, {self.out}")


#: Roughly the tokens of a step; only decides where the curriculum ends.
_TOKENS_PER_STEP = 900


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_digest() -> str:
    """SHA-256 over the source files of this package, names and contents."""
    h = hashlib.sha256()
    folder = Path(__file__).parent
    for path in [*sorted(folder.glob("*.py")), folder / "world.yaml"]:
        h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()
