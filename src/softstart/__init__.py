"""Softstart: learn where a soft prompt should start (meta prompt tuning).

The public names load on first use, so that ``import softstart`` and the gym do not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softstart.adaptation import AdaptConfig, Adapted, AdaptRun, adapt
    from softstart.backbone import Backbone, Decoding
    from softstart.encoding import TextFormat, encode_task
    from softstart.errors import SoftstartError
    from softstart.evaluation import Evaluation, Job, evaluate, predict
    from softstart.finetuning import FineTuneConfig, finetune
    from softstart.meta_training import MetaConfig, meta_train
    from softstart.prompt import SoftPrompt
    from softstart.study import load_study, run_study

__version__ = "0.1.0"

_HOME = {
    "AdaptConfig": "adaptation",
    "AdaptRun": "adaptation",
    "Adapted": "adaptation",
    "Backbone": "backbone",
    "Decoding": "backbone",
    "Evaluation": "evaluation",
    "FineTuneConfig": "finetuning",
    "Job": "evaluation",
    "MetaConfig": "meta_training",
    "SoftPrompt": "prompt",
    "SoftstartError": "errors",
    "TextFormat": "encoding",
    "adapt": "adaptation",
    "encode_task": "encoding",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "load_study": "study",
    "meta_train": "meta_training",
    "predict": "evaluation",
    "run_study": "study",
}

__all__ = [
    "AdaptConfig",
    "AdaptRun",
    "Adapted",
    "Backbone",
    "Decoding",
    "Evaluation",
    "FineTuneConfig",
    "Job",
    "MetaConfig",
    "SoftPrompt",
    "SoftstartError",
    "TextFormat",
    "__version__",
    "adapt",
    "encode_task",
    "evaluate",
    "finetune",
    "load_study",
    "meta_train",
    "predict",
    "run_study",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"softstart.{_HOME[name]}"), name)
    raise AttributeError(f"module 'softstart' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
