"""What a study is: one YAML that declares everything its numbers depend on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from softstart.backbone import TINY
from softstart.errors import SoftstartError
from softstart.prompt import PLACEMENTS
from softstart.storage.safe_yaml import read_yaml
from softstart.study.declare.parts import SettingSpec
from softstart.study.declare.presets import PresetName, filled, inherited
from softstart.training.budgets import LIMITS, MetaBudget
from softstart.training.configs import STRICT, AdaptConfig, FineTuneConfig, Positive, PromptSpec
from softstart.training.encoding import TextFormat
from softstart.training.evaluation import Evaluation
from softstart.training.methods import Method, resolve_method

MAIN = "main"
"""The variant that is the study as declared."""

SHARED = ("name", "variants")
"""What a variant cannot override."""

LOADING = ("device_map", "gradient_checkpointing", "compile")
"""How a backbone is loaded, beside its dtype."""

MODEL = ("backbone", "revision", "dtype", *LOADING)
DATA = ("gym", "shots", "source_shots", "setting", "settings", "source_tasks", "samples", "source_samples")
"""What a variant under another preset keeps, with ``MODEL`` and the methods' names."""

Rates = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]


class Study(BaseModel):
    """A declared comparison of methods on target tasks."""

    model_config = STRICT

    name: str
    """Names the folder ``runs/NAME`` and the report."""
    preset: PresetName | None = None
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
    """Have torch compile the layers (T5 v1.1, first order, no dropout); needs a C compiler."""
    gym: str = "mini"
    """``mini`` or a folder in CrossFit's format."""
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
    """Learn from so many of a setting's source tasks only, the first of one shuffled list."""
    test_rows: Positive | dict[str, Positive] | None = None
    """Test on the first rows only, of every task or of those named (the published study cut 14 to 1,000)."""
    meta_seeds: Annotated[list[int], Field(min_length=1)] = [42]
    """Seeds of meta-training and of the data order of adaptation."""
    baseline_seeds: Annotated[list[int], Field(min_length=1)] | None = None
    """Seeds of the baselines' starts and data order; None: the meta seeds. With fewer of them than meta
    seeds, a baseline run stands beside several meta seeds."""
    text: TextFormat = TextFormat()
    """How an example becomes model input."""
    prompt: PromptSpec = PromptSpec()
    """Length, place and start of the soft prompts."""
    methods: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Method name → overrides (fields of the algorithm and of ``meta``); ``algorithm: NAME`` for variants."""
    meta: MetaBudget = MetaBudget()
    """The outer loop of all methods; a method can override its fields."""
    learning_rates: Rates = [0.5, 0.4, 0.3, 0.2]
    """Grid of adaptation; the best on dev is chosen for each run."""
    adaptation: AdaptConfig = AdaptConfig()
    """How target tasks are learned."""
    finetuning: FineTuneConfig = FineTuneConfig()
    """The baseline that trains the whole backbone."""
    finetuning_learning_rates: Rates = [5e-4, 3e-4, 2e-4, 1e-4]
    """Its grid."""
    finetuning_backbone: str | None = None
    """Fine-tune from other weights than those that prompts are tuned for, as published; None: the same."""
    evaluation: Evaluation = Evaluation()
    """How predictions are made and scored."""
    pack_size: Positive = 16
    """Most runs trained together, fewer where memory is short; does not change their numbers."""
    variants: dict[str, dict[str, Any]] = {}
    """Ablations: name → overrides of this study (``prompt.length: 5``, ``backbone: gpt2``), each a study of
    its own under that name; they share what they have in common with this one, which is the variant "main".
    One that names a ``preset`` has everything from there but for its model, data and methods."""

    @property
    def loading(self) -> dict[str, Any]:
        """How the backbone is loaded, without what is not said: keys of old results stay."""
        more = {name: getattr(self, name) for name in LOADING}
        return {"dtype": self.dtype, **{name: value for name, value in more.items() if value}}

    @property
    def every_setting(self) -> list[str | SettingSpec]:
        """The settings, whether one or several are declared."""
        return self.settings or ([] if self.setting is None else [self.setting])

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.settings) == (self.setting is not None):
            raise ValueError("name one setting under 'setting' or several under 'settings'")
        if self.device_map and any(m.get("algorithm", name) == "ft" for name, m in self.methods.items()):
            raise ValueError("device_map spreads frozen weights; 'ft' trains them on one device")
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


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply ``a.b=value`` overrides.

    Raises:
        SoftstartError: no such file, broken YAML, or a value that does not fit, with its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise SoftstartError(
            f"cannot read the study ({problem.strerror})", where=str(path), fix="Check the path."
        ) from problem
    return parse_study(text, str(path), overrides)


def parse_study(text: str, where: str, overrides: Sequence[str] = ()) -> Study:
    """A study from YAML text; see ``load_study``.

    Raises:
        SoftstartError: broken YAML, or a value that does not fit, with its key.
    """
    data = read_yaml(text, where)
    if not isinstance(data, dict):
        raise SoftstartError("a study is a mapping of keys to values", where=where)
    for override in overrides:
        _override(data, override)
    study = _validated(filled(data, where), where)
    for name, variant in variants_of(study, where).items():
        resolve_methods(variant, where if name == MAIN else f"{where}: variants.{name}")
    return study


def variants_of(study: Study, where: str = "study") -> dict[str, Study]:
    """The study itself under the name "main", then every variant as a study of its own.

    Raises:
        SoftstartError: an override that does not fit, or one of what all variants share.
    """
    base = study.model_dump(mode="json", exclude={"variants"})
    studies = {MAIN: study.model_copy(update={"variants": {}})}
    for name, overrides in study.variants.items():
        place = f"{where}: variants.{name}"
        data = copy.deepcopy(base)
        if "preset" in overrides:
            methods = {
                n: {k: v for k, v in m.items() if k == "algorithm"} for n, m in data["methods"].items()
            }
            data = {key: data[key] for key in ("name", *MODEL, *DATA)} | {"methods": methods}
            data = filled({**data, "preset": overrides["preset"]}, place)
        for key, value in overrides.items():
            if key.split(".")[0] in SHARED or name == MAIN:
                raise SoftstartError(
                    f"'{name if name == MAIN else key}' is shared by all variants",
                    where=place,
                    fix="Make it a study of its own.",
                )
            for other in {"setting": ["settings"], "settings": ["setting"]}.get(key, []):
                data.pop(other)
            if key == "backbone":
                data |= {of: None for of in ("revision", "finetuning_backbone") if of not in overrides}
            own = inherited(value, data["methods"]) if key == "methods" and isinstance(value, dict) else value
            _assign(data, key, own, place)
        studies[name] = _validated(data, place)
    return studies


def _validated(data: Mapping[str, Any], where: str) -> Study:
    try:
        return Study.model_validate(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise SoftstartError(
            f"{key}: {message}" if key else message,
            where=where,
            fix="Fix this key in the study or with --set.",
        ) from problem


def resolve_methods(study: Study, where: str = "study") -> list[Method]:
    """The methods of a study with defaults filled in.

    Raises:
        SoftstartError: an unknown method, or an override that is no field of its algorithm or of ``meta``.
    """
    return [resolve_method(name, values, study.meta, where) for name, values in study.methods.items()]


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise SoftstartError(f"override '{override}' is not of the form key=value", fix="Write --set a.b=c.")
    _assign(data, key, read_yaml(value, f"override '{override}'"), f"override '{override}'")


def _assign(data: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set ``a.b.c`` in nested mappings."""
    *parents, last = key.split(".")
    node: Any = data
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, Mapping):
            raise SoftstartError(f"'{parent}' holds no keys", where=where)
    if last in LIMITS and parents and parents[0] in ("meta", "methods"):
        for other in LIMITS:
            node.pop(other, None)
    node[last] = value
