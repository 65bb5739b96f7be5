"""The status of a study, also while it runs."""

from __future__ import annotations

from pathlib import Path

from helpers.toy_study import toy
from softstart.cli import app as cli
from softstart.progress import Quiet
from softstart.study import run_study
from softstart.study.run.status import read_status


class Looker(Quiet):
    """Reads the study folder again and again while it is computed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, []

    def stage(self, name: str) -> None:
        if (self.folder / "progress.json").exists():
            self.seen.append(read_status(self.folder))


def test_status_is_live(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("softstart.study.run.status.EVERY", 0.0)
    looker = Looker(tmp_path)
    run_study(toy(world), tmp_path, display=looker)
    assert len(looker.seen) > 5
    assert all(status.pulse.alive for status in looker.seen)
    missing = [status.missing for status in looker.seen]
    assert missing == sorted(missing, reverse=True)
    assert 0 < looker.seen[5].counts["meta-trainings"][1] <= 4
    assert not (tmp_path / "progress.json").exists()
    cli._main(["status", str(tmp_path)], debug=False)
    assert "0 runs missing, 24 results, 24 of them tested" in capsys.readouterr().out
