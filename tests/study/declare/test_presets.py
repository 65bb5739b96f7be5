"""Presets: defaults that a study overrides."""

from __future__ import annotations

import pytest
import yaml

from helpers.declared import SETTING, method, study
from softstart.study import parse_study
from softstart.study.declare.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_defaults_and_the_resolved_study_says_both(name):
    plain = study(preset=name)
    again = parse_study(yaml.safe_dump(plain.model_dump(mode="json")), "study.yaml")
    assert again == plain
    assert plain.preset == name
    changed = study(
        preset=name, prompt={"length": 7}, meta={"steps": 3}, methods={"pt": {}, "fomaml": {"inner_lr": 0.5}}
    )
    assert changed.prompt == plain.prompt.model_copy(update={"length": 7})
    assert list(changed.methods) == ["pt", "fomaml"]
    fomaml = method(changed, "fomaml")
    assert (fomaml.algorithm.inner_lr, fomaml.meta.steps, fomaml.meta.limit) == (0.5, 3, "steps")
    assert fomaml.algorithm.query_size == method(plain, "fomaml").algorithm.query_size
    assert changed.adaptation == plain.adaptation
    bare = parse_study(yaml.safe_dump({"name": "x", "preset": name, "setting": SETTING}), "study.yaml")
    assert "pt" in bare.methods
