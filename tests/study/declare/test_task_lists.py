"""The tasks that a study uses of a setting."""

from __future__ import annotations

from softstart.study.declare.task_lists import some_sources


def test_fewer_source_tasks_are_a_subset_of_more():
    names = [f"t{i}" for i in range(20)]
    assert some_sources(names, None) == some_sources(names, 20) == tuple(names)
    for fewer, more in ((3, 7), (7, 12)):
        assert len(some_sources(names, fewer)) == fewer
        assert set(some_sources(names, fewer)) < set(some_sources(names, more))
