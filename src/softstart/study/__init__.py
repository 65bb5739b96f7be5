"""Studies: declare a comparison, plan it, run what is missing, report.

The rooms are in the order of the work: ``declare`` → ``plan`` → ``results`` → ``run`` (and ``cost``, which
looks at all of them). The public names load on first use, so that a list of trackers does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softstart.study.declare.spec import Study
    from softstart.study.declare.study_file import load_study, parse_study
    from softstart.study.results.outcome import Outcome, report_study, study_tables
    from softstart.study.run.joining import join_study
    from softstart.study.run.processes import default_workers
    from softstart.study.run.run import run_study

_HOME = {
    "Outcome": "results.outcome",
    "Study": "declare.spec",
    "default_workers": "run.processes",
    "join_study": "run.joining",
    "load_study": "declare.study_file",
    "parse_study": "declare.study_file",
    "report_study": "results.outcome",
    "run_study": "run.run",
    "study_tables": "results.outcome",
}

__all__ = [
    "Outcome",
    "Study",
    "default_workers",
    "join_study",
    "load_study",
    "parse_study",
    "report_study",
    "run_study",
    "study_tables",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"softstart.study.{_HOME[name]}"), name)
    raise AttributeError(f"module 'softstart.study' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
