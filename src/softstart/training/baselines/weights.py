"""Baselines that train weights of the backbone: full fine-tuning, and LoRA (Hu et al., 2022) through PEFT.

Full fine-tuning is done by Adafactor (Shazeer & Stern, 2018), LoRA by AdamW.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar

import torch

from softstart.backbone import Backbone
from softstart.backbone.flops import Flops
from softstart.errors import SoftstartError
from softstart.training.baselines.base import Given, Learned, Test, Unpacked
from softstart.training.configs import FineTuneConfig, steps_of
from softstart.training.finetuning import EVERY_WEIGHT, FineTuned, Trainable, finetune, score_finetuned
from softstart.training.identity import Unkeyed

COST = 2.0
"""Work of a row in rows of prompt tuning, roughly (gradients of weights, no packs)."""


@dataclass(frozen=True)
class WeightTuning(Unpacked):
    """What trains weights by gradient steps: the state with the best dev score is tested at every budget."""

    elsewhere: ClassVar[Mapping[str, str]] = {"training": "finetuning"}
    training: FineTuneConfig = FineTuneConfig()
    """Steps, batches, dev evaluations and budgets; a study declares them under ``finetuning``."""

    @property
    def budgets(self) -> tuple[int, ...]:
        """As declared, or all steps."""
        return self.training.budgets or (self.training.steps,)

    def cost(self, train: int) -> tuple[float, float, float]:
        """As of ``Unpacked``."""
        steps = steps_of(self.training, train) if train else self.training.steps
        return steps * self.training.batch_size * COST, steps / self.training.eval_every + 1, 1.0

    @abstractmethod
    def trainable(self, seed: int = 0) -> Trainable:
        """What is trained, and by which optimizer; ``seed`` draws what begins at random."""

    def run(self, given: Given, test: Test) -> Learned:
        """Train a copy of the weights; none of it is kept."""
        size = 0, 0

        def at_budget(result: FineTuned, twin: Backbone) -> None:
            nonlocal size
            size = _size(twin.model)
            if result.weights:
                test(
                    result.best_step,
                    lambda: score_finetuned(twin, [result], given.task, given.evaluation, twin)[0],
                )

        steps = self.training.steps
        result = finetune(
            given.backbone,
            given.task,
            given.sample,
            given.lr,
            self.training,
            given.evaluation,
            seed=given.seed,
            progress=lambda n, note="": given.progress(n / steps, note),
            at_budget=at_budget,
            trainable=self.trainable(given.seed),
        )
        trained, stored = size
        known = {of.name: getattr(result, of.name) for of in fields(Learned) if hasattr(result, of.name)}
        return Learned(**known, trained=trained, stored=stored)


def _size(model: torch.nn.Module) -> tuple[int, int]:
    """Trained parameters of a model, and their bytes."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return sum(p.numel() for p in trained), sum(p.nbytes for p in trained)


@dataclass(frozen=True)
class FineTuning(WeightTuning):
    """Every weight is trained, by Adafactor (Shazeer & Stern, 2018)."""

    label: ClassVar[str] = "FT"
    color: ClassVar[str | None] = "#70285b"
    trains: ClassVar[str] = "every weight"
    work: ClassVar[str] = "fine-tuning"
    elsewhere: ClassVar[Mapping[str, str]] = {
        "training": "finetuning",
        "learning_rates": "finetuning_learning_rates",
        "weights": "finetuning_backbone",
    }
    learning_rates: tuple[float, ...] = (5e-4, 3e-4, 2e-4, 1e-4)
    """The grid."""
    weights: str | None = None
    """Other weights to begin with, as published; None: those of prompt tuning."""

    @property
    def other_weights(self) -> str | None:
        """As declared."""
        return self.weights

    @property
    def rates(self) -> Sequence[float]:
        """As declared."""
        return self.learning_rates

    def trainable(self, seed: int = 0) -> Trainable:
        """All of it."""
        return EVERY_WEIGHT

    def identity_parts(self, kind: str) -> dict[str, Any]:
        """As keys of older results hold it."""
        return {"training": self.training, "tuned": True}


@dataclass(frozen=True)
class LoRA(WeightTuning):
    """Low-rank changes of the attention's weights are trained, by AdamW; needs PEFT (``softstart[peft]``)."""

    label: ClassVar[str] = "LoRA"
    color: ClassVar[str | None] = "#7f3c6b"
    trains: ClassVar[str] = "low-rank changes of attention weights"
    work: ClassVar[str] = "LoRA tuning"
    learning_rates: Annotated[tuple[float, ...], Unkeyed()] = (3e-3, 1e-3, 3e-4)
    """The grid."""
    rank: int = 8
    """The rank of each change."""
    alpha: int = 16
    """A change is scaled by ``alpha / rank``."""
    weight_decay: float = 0.0
    """Of AdamW."""
    modules: tuple[str, ...] = ()
    """Names of the layers that are changed; by default those that PEFT knows for the model type."""

    @property
    def rates(self) -> Sequence[float]:
        """As declared."""
        return self.learning_rates

    def trainable(self, seed: int = 0) -> Trainable:
        """The adapters."""
        return _Adapters(self, seed)


@dataclass(frozen=True)
class _Adapters:
    """LoRA's adapters, whose random halves come from a seed."""

    lora: LoRA
    seed: int

    def copy(self, backbone: Backbone) -> Backbone:
        """A copy with new adapters, whose output is that of the backbone.

        Raises:
            SoftstartError: PEFT is missing, or does not know which layers of this model to change.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as problem:
            raise SoftstartError("LoRA needs PEFT", fix="pip install 'softstart[peft]'") from problem
        config = LoraConfig(
            r=self.lora.rank,
            lora_alpha=self.lora.alpha,
            target_modules=list(self.lora.modules) or None,
            task_type=backbone.peft_task,
        )

        def rebuild(model: torch.nn.Module) -> None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "fan_in_fan_out is set")  # PEFT sets it right for GPT-2
                inject_adapter_in_model(config, model)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("lora_" in name)

        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                return backbone.rebuilt_copy(rebuild)
        except ValueError as problem:
            raise SoftstartError(
                f"LoRA does not fit '{backbone.name}' ({str(problem).splitlines()[0]})",
                fix="Name the layers to change: methods.lora.modules.",
            ) from problem

    def optimizer(self, model: torch.nn.Module, lr: float, decay: float) -> torch.optim.Optimizer:
        """AdamW on the adapters, with the decay of ``LoRA.weight_decay``."""
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=lr, weight_decay=self.lora.weight_decay)

    def price(self, flops: Flops) -> float:
        """A gradient through the activations; the adapters' own products are a percent of it."""
        return flops.gradient
