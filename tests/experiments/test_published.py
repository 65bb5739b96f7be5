"""The published record next to a study of the mini gym."""

from __future__ import annotations

import pandas as pd

from helpers.paths import ROOT


def test_the_published_ranking_beside_that_of_a_mini_study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments.published.__main__ import agreement

    def rows(setting, gains, **more):
        return pd.DataFrame(
            [
                {
                    "setting": setting,
                    "method": name,
                    "task": task,
                    "sample": 13,
                    "test": 0.5 * (1 + gain),
                    **more,
                }
                for name, gain in {"pt": 0.0, **gains}.items()
                for task in ("a", "b")
            ]
        )

    there = {"multi": 0.1, "maml": 0.2, "reptile": 0.3}
    published = pd.concat(
        [rows(s, there, backbone="t5-large", prompt_length=100, variant="main") for s in ("cls2cls", "qa2qa")]
    )
    same, turned = ({"multitask": a, "maml": 0.2, "reptile": b} for a, b in ((0.0, 0.5), (0.5, 0.0)))
    mini = pd.concat([rows("mini-cls2cls", same, budget=200), rows("mini-qa2qa", turned, budget=200)])
    lines = list(agreement(published, mini))
    assert "| cls2cls | 3 | 1 | reptile | reptile |" in lines
    assert "| qa2qa | 3 | -1 | reptile | multitask |" in lines
    assert lines[-1] == "Mean rank correlation over 2 settings: 0.00."
