"""What a study declares: everything that its numbers depend on, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from softstart.backbone import TINY
from softstart.prompt import KINDS, PLACEMENTS
from softstart.study.declare.presets import PRESETS
from softstart.training.budgets import MetaBudget
from softstart.training.configs import STRICT, AdaptConfig, FineTuneConfig, Positive, PromptSpec
from softstart.training.encoding import TextFormat
from softstart.training.evaluation import Evaluation
from softstart.training.methods import Method, resolve_method, trains_weights

MAIN = "main"
"""The variant that is the study as declared."""

LOADING = ("device_map", "gradient_checkpointing", "compile")
"""How a backbone is loaded, besides its dtype."""

Rates = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]


class SettingSpec(BaseModel):
    """Source and target tasks under a name."""

    model_config = STRICT

    name: str = "custom"
    """For tables and file names."""
    source: list[str] = []
    """Tasks to learn a start from."""
    target: Annotated[list[str], Field(min_length=1)]
    """Tasks to adapt it to."""


class Study(BaseModel):
    """A declared comparison of methods on target tasks."""

    model_config = STRICT

    name: str
    """Names the folder ``runs/NAME`` and the report."""
    preset: Annotated[str, AfterValidator(PRESETS.check)] | None = None
    """Where the defaults come from; any key given overrides them."""
    backbone: str = TINY
    """``softstart/tiny``, a folder with a transformers checkpoint, or a hub id."""
    revision: str | None = None
    """Hub revision of the backbone: a commit, to be reproducible."""
    dtype: str = "float32"
    """Of the frozen weights: float32, bfloat16 or float64 (float16 where the family does not overflow)."""
    device_map: Literal["auto"] | None = None
    """``auto`` spreads a backbone that is larger than one GPU over all of them; needs accelerate."""
    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass: about a third more time, a fraction of the memory."""
    compile: bool = False
    """Have torch compile layers (T5 v1.1, first order, no dropout) and the kernels of exact second order
    (causal models, too); needs a C compiler."""
    gym: str = "mini"
    """``mini`` or a folder in CrossFit's format."""
    gym_version: Positive | None = None
    """Which settings of the mini gym are meant (see ``softstart.gym.mini.versions``); None: version 1."""
    gym_reading: Literal["strict", "published"] = "strict"
    """How a folder is read: ``strict`` refuses broken rows; ``published`` takes them as the published code
    did (a stray TAB cuts an input, rows may lack an answer)."""
    shots: Positive | None = None
    """Which k of a folder that holds several."""
    setting: str | SettingSpec | None = None
    """Source and target tasks: the name of a published setting, a YAML file, or both lists."""
    settings: list[str | SettingSpec] = []
    """Several settings in one study, in place of ``setting``; what they share is computed once."""
    samples: Annotated[list[int], Field(min_length=1)] = [13, 21, 42, 87, 100]
    """Seeds of the k-shot samples of target tasks."""
    source_samples: list[int] | None = None
    """Seeds of the samples of source tasks; None: the same."""
    source_shots: Positive | None = None
    """Which k of a folder source tasks have; None: the same."""
    source_tasks: Positive | None = None
    """Learn from this many source tasks of a setting only: the first ones of a fixed shuffled list."""
    test_rows: Positive | dict[str, Positive] | None = None
    """Test on this many first rows only, of every task or of the named ones (1,000 of some, as published)."""
    meta_seeds: Annotated[list[int], Field(min_length=1)] = [42]
    """Seeds of meta-training and of the data order of adaptation."""
    baseline_seeds: Annotated[list[int], Field(min_length=1)] | None = None
    """Seeds of the baselines' starts and data order; None: the meta seeds. With fewer of them than meta
    seeds, one baseline run is compared with several meta seeds."""
    text: TextFormat = TextFormat()
    """How an example becomes model input."""
    prompt: PromptSpec = PromptSpec()
    """Length, place and start of the soft prompts."""
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Method name → overrides (fields of the algorithm and of ``meta``); ``algorithm: NAME`` for variants."""
    meta: MetaBudget = MetaBudget()
    """The outer loop of all methods; a method can override its fields."""
    learning_rates: Rates = [0.5, 0.4, 0.3, 0.2]
    """Grid of adaptation; dev scores choose from it, cell by cell."""
    adaptation: AdaptConfig = AdaptConfig()
    """How target tasks are learned."""
    finetuning: FineTuneConfig = FineTuneConfig()
    """Steps and batches of the baselines that train weights: full fine-tuning and LoRA."""
    finetuning_learning_rates: Rates = [5e-4, 3e-4, 2e-4, 1e-4]
    """Grid of full fine-tuning."""
    finetuning_backbone: str | None = None
    """Other weights to fine-tune fully, as published; None: those of prompt tuning."""
    evaluation: Evaluation = Evaluation()
    """How predictions are made and scored."""
    pack_size: Positive = 16
    """Upper bound on the runs trained together; there are fewer where memory is short. Their numbers depend
    on it only under dropout, whose masks span a pack."""
    pack_refill: Positive = 1
    """A piece of work takes up to ``pack_refill * pack_size`` runs, ``pack_size`` of them at once: when one
    ends early (patience, rungs, epochs), the next takes its place. A larger value keeps packs full for
    longer but leaves fewer, longer pieces of work to the workers. It changes no number beyond rounding. Not
    used under dropout, and where no run can end early."""
    text_cache: Annotated[int, Field(ge=0)] | None = None
    """MiB that a worker may fill with texts a causal model has read; 0: none; None: its share of a quarter of
    the free memory. No number depends on it."""
    variants: dict[str, dict[str, Any]] = {}
    """Ablations: name → overrides of this study (``prompt.length: 5``, ``backbone: gpt2``). Each is a study
    under that name; work that it has in common with this one, the variant "main", is done once. One that
    names a ``preset`` takes everything from there except its model, data and methods."""

    @property
    def loading(self) -> dict[str, Any]:
        """How the backbone is loaded, without options that are off: so keys of old results stay."""
        more = {name: getattr(self, name) for name in LOADING}
        return {"dtype": self.dtype, **{name: value for name, value in more.items() if value}}

    @property
    def every_setting(self) -> list[str | SettingSpec]:
        """The settings: the one under ``setting``, or those under ``settings``."""
        return self.settings or ([] if self.setting is None else [self.setting])

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.settings) == (self.setting is not None):
            raise ValueError("name one setting under 'setting' or several under 'settings'")
        kinds = [m.get("algorithm", name) for name, m in self.methods.items()]
        if self.device_map and (tuned := [kind for kind in kinds if trains_weights(kind)]):
            raise ValueError(f"device_map spreads frozen weights; '{tuned[0]}' trains them on one device")
        for part in (self.adaptation, self.finetuning):
            budgets = list(part.budgets)
            if budgets != sorted(set(budgets)) or not all(0 < b <= part.steps for b in budgets):
                name = type(part).__name__
                raise ValueError(f"{name}.budgets must ascend from 1 to at most {part.steps}, its steps")
        return self

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if PLACEMENTS.find(self.prompt.placement).rows_interact and self.pack_size > 1:
            raise ValueError(
                f"placement {self.prompt.placement} needs pack_size: 1: rows of one run change another's"
            )
        dropout = self.adaptation.dropout or self.meta.dropout
        if dropout and not KINDS[self.prompt.kind].dropout:
            raise ValueError(f"prompts of kind {self.prompt.kind} are trained without dropout")
        for tuning in (self.adaptation, self.finetuning):
            if tuning.batch_parts < 1 or tuning.batch_size % tuning.batch_parts:
                raise ValueError(f"{type(tuning).__name__}.batch_parts must divide its batch_size")
        for part, names in (
            (self.meta, ("steps", "meta_batch", "lr", "checkpoint_every")),
            (self.adaptation, ("steps", "batch_size", "eval_every", "eval_backoff")),
            (self.finetuning, ("steps", "batch_size", "eval_every")),
            (self.evaluation.decoding, ("num_beams", "max_new_tokens")),
        ):
            for name in names:
                if getattr(part, name) <= 0:
                    raise ValueError(f"{type(part).__name__}.{name} must be greater than 0")
        return self


def resolved(study: Study) -> Mapping[str, Any]:
    """The study with every default filled in, as plain data."""
    data: Mapping[str, Any] = study.model_dump(mode="json")
    return data


def resolve_methods(study: Study, where: str = "study") -> list[Method]:
    """The methods of a study with defaults filled in.

    Raises:
        SoftstartError: an unknown method, or an override that is not a field of its algorithm or of ``meta``.
    """
    return [
        resolve_method(name, values, study.meta, f"{where}: methods.{name}", study)
        for name, values in study.methods.items()
    ]
