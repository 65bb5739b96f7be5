"""Learning curves for experiment trackers, while a study runs. Nothing is sent anywhere by default.

Another tracker is a class with the methods of ``Tracker``: registered in ``TRACKERS``, or named by its import
path.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from softstart.errors import SoftstartError
from softstart.registry import Registry
from softstart.study.run.work import Done


class Tracker(Protocol):
    """Takes numbers by name and step. Dev scores are fractions, losses in nats."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""

    def close(self) -> None:
        """No more are coming."""


class TensorBoard:
    """Event files in the study's folder."""

    def __init__(self, study: str, folder: Path) -> None:
        _library("tensorboard")
        self.writer = _library("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard"))

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()


class WandB:
    """Weights & Biases, its files in the study's folder; offline with ``WANDB_MODE=offline``."""

    def __init__(self, study: str, folder: Path) -> None:
        self.run = _library("wandb").init(project="softstart", name=study, dir=str(folder))

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve; curves of many runs share one log, so each carries its own step."""
        self.run.log({name: value, f"{name}/step": step})

    def close(self) -> None:
        """Finish the log."""
        self.run.finish()


class Trackio(WandB):
    """trackio has the interface of wandb and stays on this machine, in the folder ``TRACKIO_DIR``."""

    def __init__(self, study: str, folder: Path) -> None:
        self.run = _library("trackio").init(project="softstart", name=study)


class MLflow:
    """MLflow at ``MLFLOW_TRACKING_URI``; by default a database in the working directory."""

    def __init__(self, study: str, folder: Path) -> None:
        self.library = _library("mlflow")
        self.library.start_run(run_name=study)

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        self.library.log_metric(name, value, step=step)

    def close(self) -> None:
        """End the run."""
        self.library.end_run()


TRACKERS: Registry[Callable[[str, Path], Tracker]] = Registry(
    "tracker", accepts=lambda thing: isinstance(thing, type) and hasattr(thing, "scalar")
)
"""Trackers by name; each is called with the study's name and folder."""

TRACKERS.add("tensorboard", TensorBoard)
TRACKERS.add("wandb", WandB)
TRACKERS.add("trackio", Trackio)
TRACKERS.add("mlflow", MLflow)


def open_tracker(name: str, study: str, folder: Path) -> Tracker:
    """The tracker of that name, or of that import path.

    Args:
        name: one of ``TRACKERS``, or the import path of a class.
        study: the name of the study.
        folder: the study folder.

    Raises:
        SoftstartError: an unknown name, its package is not installed, or it does not start.
    """
    tracker = TRACKERS.find(name)
    try:
        return tracker(study, folder)
    except SoftstartError:
        raise
    except Exception as problem:  # any error of somebody else's library, also from a network
        raise SoftstartError(
            f"{name} does not start ({(str(problem).splitlines() or [type(problem).__name__])[0]})",
            fix="Set it up, or leave out --tracker.",
        ) from problem


def track(tracker: Tracker, done: Done) -> None:
    """Send the curves of finished work: losses of meta-trainings (nats), dev scores of runs (fractions)."""
    for row in done.metas:
        for point in row["curve"]:
            for kind, loss in point.items():
                if kind != "step":
                    tracker.scalar(
                        f"meta-training/{row['method']}/seed {row['seed']}/{kind}", loss, point["step"]
                    )
    for row in done.runs:
        name = f"dev/{row['task']}/{row['method']}/sample {row['sample']}/lr {row['lr']:g}/seed {row['seed']}"
        for step, dev, _ in row["curve"]:
            tracker.scalar(name, dev, step)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        package = name.split(".")[0]
        raise SoftstartError(f"{package} is not installed", fix=f"pip install {package}.") from problem
