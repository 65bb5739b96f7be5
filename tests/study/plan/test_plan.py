"""A plan: the product of the axes of a study."""

from __future__ import annotations

import softstart.study
from helpers.declared import facts, study
from helpers.rows import keys
from helpers.rows import plan as planned
from softstart.study.plan.plan import make_plan


def test_a_plan_is_the_product_of_its_axes():
    p = planned({"meta_seeds": [1, 2]})
    assert len(p.metas) == 2 * 2
    assert len(p.cells) == 4 * 2 * 2 * 2  # methods x tasks x samples x seeds
    assert {len(c.runs) for c in p.cells if c.method.kind == "ft"} == {4}
    assert {len(c.runs) for c in p.cells if c.method.kind != "ft"} == {2}
    assert len(keys(p)[1]) == len(list(p.runs))
    starts = {m.key for m in p.metas}
    assert all((r.start in starts) == (r.method.kind == "maml") for r in p.runs)


def test_a_grid_has_one_start_a_run_in_the_order_of_its_samples_and_rates():
    inputs = facts(("s1", "s2", "t1", "t2"))
    declared = study(samples=[21, 13], prompt={"draw_per": "run"}, learning_rates=[0.5, 0.2, 0.1])
    plan = make_plan(declared, inputs)
    draws = {(r.sample, r.lr): r.draw for r in plan.runs if r.method.name == "pt" and r.task == "t1"}
    order = [(sample, lr) for sample in (21, 13) for lr in (0.5, 0.2, 0.1)]
    assert [draws[key] for key in order] == list(range(6))
    assert {r.draw for r in plan.runs if r.method.name != "pt"} == {0}
    assert len({r.key for r in plan.runs if r.method.name == "pt" and r.task == "t1"}) == 6


def test_a_plan_reads_the_same_from_the_folder(finished):
    tables = softstart.study.study_tables(finished[0])
    assert {name: len(table) for name, table in tables.items()} == {"results": 24, "runs": 44, "curves": 128}
