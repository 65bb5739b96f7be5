"""Softstart: learn where a soft prompt should start (meta prompt tuning).

The public names load on first use, so that ``import softstart`` and the gym do not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softstart.backbone import Backbone, Decoding
    from softstart.errors import SoftstartError
    from softstart.prompt import SoftPrompt
    from softstart.study import load_study, run_study
    from softstart.training.adaptation import Adapted, AdaptRun, adapt
    from softstart.training.configs import AdaptConfig, FineTuneConfig, MetaConfig
    from softstart.training.encoding import TextFormat, encode_task
    from softstart.training.evaluation import Evaluation, Job, evaluate, predict
    from softstart.training.finetuning import finetune
    from softstart.training.meta_training import meta_train

__version__ = "0.2.0"

_HOME = {
    "AdaptConfig": "training.configs",
    "AdaptRun": "training.adaptation",
    "Adapted": "training.adaptation",
    "Backbone": "backbone",
    "Decoding": "backbone",
    "Evaluation": "training.evaluation",
    "FineTuneConfig": "training.configs",
    "Job": "training.evaluation",
    "MetaConfig": "training.configs",
    "SoftPrompt": "prompt",
    "SoftstartError": "errors",
    "TextFormat": "training.encoding",
    "adapt": "training.adaptation",
    "encode_task": "training.encoding",
    "evaluate": "training.evaluation",
    "finetune": "training.finetuning",
    "load_study": "study",
    "meta_train": "training.meta_training",
    "predict": "training.evaluation",
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
