"""The version of the mini gym's settings: recorded, part of keys, and the first one as if there were none."""

from __future__ import annotations

import json

import pytest
import yaml

from helpers.paths import ROOT
from softstart.errors import SoftstartError
from softstart.gym.mini import versions
from softstart.study import load_study, parse_study
from softstart.study.cost.estimate import nominal_inputs
from softstart.study.plan.departures import protocol
from softstart.study.plan.inputs import Inputs, Part, TaskFacts
from softstart.study.plan.plan import make_plan
from softstart.study.run.resources import Resources

SETTING = "mini-nonpara2para"


@pytest.fixture
def second(tmp_path, monkeypatch):
    """A second version, in which the sides of a setting are exchanged."""
    first = versions.load_version(1)
    lists = first.settings[SETTING]
    data = {
        "tasks": sorted(first.tasks),
        "settings": {SETTING: {"source": list(lists.target), "target": [lists.source[0]]}},
    }
    path = tmp_path / "version-2.yaml"
    path.write_text(yaml.safe_dump(data))
    file_of = versions.file_of
    monkeypatch.setattr(versions, "versions", lambda: (1, 2))
    monkeypatch.setattr(versions, "file_of", lambda version: path if version == 2 else file_of(version))
    yield
    versions.load_version.cache_clear()


def study(**changes):
    declared = {
        "name": "x",
        "setting": SETTING,
        "methods": {"pt": {}, "fomaml": {}},
        "samples": [13],
        **changes,
    }
    return parse_study(yaml.safe_dump(declared), "study.yaml")


def test_a_study_has_the_settings_of_the_version_it_names(second, t5):
    lists = versions.load_version(1).settings[SETTING]
    parts = {}
    for version in (None, 1, 2):
        declared = study(gym_version=version)
        resources = Resources({"main": declared}, load=lambda *args, **more: t5)
        (parts[version],) = resources.inputs().parts
        assert [part.source for part in nominal_inputs(declared).parts] == [parts[version].source]
    assert parts[None] == parts[1]
    assert (parts[1].source, parts[1].gym_version) == (lists.source, None)
    assert (parts[2].source, parts[2].gym_version) == (lists.target, 2)
    tasks = {value.what: value.here for value in protocol(study(gym_version=2))}["tasks"]
    assert tasks == "mini gym, version 2"


def test_a_version_is_part_of_the_keys_of_starts_only_where_it_is_not_the_first():
    def plan(version):
        tasks = {name: TaskFacts(name, "ACC", 16) for name in ("s", "t")}
        inputs = Inputs("b", 8, (Part("main", "x", ("s",), ("t",), tasks, ("s",), gym_version=version),))
        assert Inputs.from_json(inputs.to_json()) == inputs
        return make_plan(study(), inputs)

    old, new = plan(None), plan(2)
    assert {meta.key for meta in old.metas}.isdisjoint(meta.key for meta in new.metas)
    for a, b in zip(old.runs, new.runs, strict=True):
        assert (a.key == b.key) == (a.method.name == "pt")  # its task is the same one


def test_folders_from_before_there_were_versions_are_read():
    inputs = nominal_inputs(load_study(ROOT / "src/softstart/study/demo.yaml"))
    data = json.loads(inputs.to_json())
    for part in data["parts"]:
        del part["gym_version"]
    assert Inputs.from_json(json.dumps(data)) == inputs


def test_an_unknown_version_and_one_of_another_gym_are_refused(tmp_path):
    with pytest.raises(SoftstartError, match="no version 9 of the mini gym"):
        Resources({"main": study(gym_version=9)}).gym("main")
    with pytest.raises(SoftstartError, match="has no versions"):
        Resources({"main": study(gym_version=1, gym=str(tmp_path))}).gym("main")
