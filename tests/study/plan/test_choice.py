"""The run that dev scores choose."""

from __future__ import annotations

from helpers.declared import facts, study
from softstart.study.plan.choice import choose
from softstart.study.plan.plan import make_plan
from softstart.training.configs import AdaptConfig


def test_the_best_dev_score_of_all_steps_chooses_the_rate_and_ties_go_to_the_first():
    paper = study(preset="paper", adaptation={"steps": 150})
    plan = make_plan(paper, facts(("s1", "s2", "t1", "t2")))
    cell = next(c for c in plan.cells if c.method.name == "pt")
    assert [run.lr for run in cell.runs] == [0.5, 0.4, 0.3, 0.2]
    curves = {
        0.5: [[50, 0.25, 1.0], [100, 0.5, 1.0], [150, 0.125, 1.0]],
        0.4: [[50, 0.5, 1.0], [100, 0.25, 1.0], [150, 0.5, 1.0]],
        0.3: [[50, 0.25, 1.0], [100, 0.25, 1.0], [150, 0.25, 1.0]],
        0.2: [[50, None, 1.0], [100, 0.375, 1.0], [150, 0.25, 1.0]],
    }
    done = {
        run.key: {"curve": [[s, float("nan") if d is None else d, x] for s, d, x in curves[run.lr]],
                  "status": "done", "steps": 150}
        for run in cell.runs
    }  # fmt: skip
    last = choose(cell, paper, done, 150)
    assert (last.run.lr, last.dev, last.best_step, last.tested_step) == (0.5, 0.5, 100, 150)
    best = choose(cell, paper.model_copy(update={"adaptation": AdaptConfig(steps=150)}), done, 150)
    assert (best.run.lr, best.tested_step) == (0.5, 100)
