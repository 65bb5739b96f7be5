"""The tasks of a study that has results, with all that is needed to look at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from softstart.analysis import largest_budget, relative_gains, with_defaults
from softstart.backbone import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import find_initializer
from softstart.storage.csv_files import read_csv
from softstart.study.declare.spec import MAIN, Study, resolve_methods
from softstart.study.declare.study_file import load_study, variants_of
from softstart.study.plan.inputs import Inputs, Part
from softstart.study.results.folder import RESULTS, STUDY_FILE
from softstart.study.results.outcome import BASELINE
from softstart.study.results.stores import open_store
from softstart.study.run.resources import Resources
from softstart.training.encoding import EncodedTask
from softstart.training.starts import draw_start


@dataclass(frozen=True)
class StudiedTasks:
    """The main variant of a study: its settings (``parts``), its results at the largest budget (``rows``)."""

    folder: Path
    resources: Resources
    parts: list[Part]
    rows: pd.DataFrame

    @property
    def study(self) -> Study:
        """The study."""
        return self.resources.studies[MAIN]

    @property
    def backbone(self) -> Backbone:
        """The frozen model."""
        return self.resources.backbone(MAIN)

    @property
    def sample(self) -> int:
        """The sample of each task that is looked at."""
        return (self.study.source_samples or self.study.samples)[0]

    @property
    def _baselines(self) -> list[str]:
        return [method.name for method in resolve_methods(self.study) if method.algorithm is None]

    @property
    def learned(self) -> pd.DataFrame:
        """The results of methods that learn from source tasks."""
        return self.rows[~self.rows["method"].isin(self._baselines)]

    @property
    def gains(self) -> pd.DataFrame:
        """Gains of the methods that learn, one row per setting, method and target."""
        gains = relative_gains(self.rows, BASELINE)
        return gains[~gains["method"].isin(self._baselines)]

    def start(self) -> Tensor:
        """The start [P, d] that all tasks are looked at from."""
        spec = self.study.prompt
        if find_initializer(spec.init)[0].needs in ("names", "labels", "rows"):  # those of one task favor it
            spec = spec.model_copy(update={"init": "vocabulary"})
        return draw_start(self.backbone, spec, (), self.study.meta_seeds[0])

    def encoded(self, name: str) -> EncodedTask:
        """A task as the backbone reads it."""
        return self.resources.encoded(MAIN, name)

    def category(self, name: str) -> str:
        """Where a task stands in the ontology."""
        return self.resources.task(MAIN, name).category


def open_studied(folder: Path, device: str | None = None) -> StudiedTasks:
    """The tasks of a study folder.

    Args:
        folder: a study folder with results.
        device: where to compute.

    Raises:
        SoftstartError: no study, no results, or its gym or backbone are not there.
    """
    resources = Resources(variants_of(load_study(folder / STUDY_FILE)), device)
    with open_store(folder, readonly=True) as store:
        parts = [part for part in Inputs.from_json(store.inputs()).parts if part.variant == MAIN]
    try:
        rows = with_defaults(read_csv(folder / RESULTS))
    except SoftstartError as problem:
        raise SoftstartError(
            f"there is no result yet ({problem.what})", where=str(folder), fix="Run the study."
        ) from problem
    return StudiedTasks(folder, resources, parts, largest_budget(rows[rows["variant"] == MAIN]))
