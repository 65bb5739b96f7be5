"""Which runs train together, and which of a pack train at once: one that ends gives its place to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


class Places:
    """The places of a pack, and the runs that wait for one.

    Args:
        groups: numbers of runs that begin together, in the order in which they begin.
        most: upper bound on the runs that train at once; a larger group trains alone. None: all of them.
    """

    def __init__(self, groups: Iterable[Sequence[int]], most: int | None = None) -> None:
        self.waiting = [list(group) for group in groups]
        sizes = [len(group) for group in self.waiting]
        self.most = sum(sizes) if most is None else most
        self.run_at: list[int | None] = [None] * max([min(self.most, sum(sizes)), *sizes])
        """The run at every place; None: nobody."""

    @property
    def taken(self) -> dict[int, int]:
        """The runs in training, by place."""
        return {place: run for place, run in enumerate(self.run_at) if run is not None}

    def fill(self) -> dict[int, int]:
        """Let waiting groups begin, in their order, while there is room: the runs that begin, by place."""
        begun: dict[int, int] = {}
        while self.waiting and self._fits(len(self.waiting[0])):
            group = self.waiting.pop(0)
            free = [place for place, run in enumerate(self.run_at) if run is None]
            for place, run in zip(free[: len(group)], group, strict=True):
                self.run_at[place] = begun[place] = run
        return begun

    def leave(self, place: int) -> int:
        """Free a place: the run that was there."""
        run = self.run_at[place]
        assert run is not None
        self.run_at[place] = None
        return run

    def restore(self, run_at: Sequence[int | None], waiting: Collection[int]) -> None:
        """Go on with the places of an earlier process, as many as there were, and the runs that waited."""
        self.run_at = list(run_at)
        self.most = min(self.most, len(self.run_at))
        self.waiting = [group for group in self.waiting if group[0] in waiting]

    def _fits(self, size: int) -> bool:
        taken = len(self.taken)
        return taken == 0 or taken + size <= self.most


def whole_groups(groups: Sequence[str | None], size: int) -> list[list[int]]:
    """Cut runs into packs of at most ``size`` that keep groups whole; a larger group is a pack by itself.

    Args:
        groups: the group of every run, in order.
        size: upper bound on the runs of a pack.

    Returns:
        Indices of the runs of each pack, groups in the order of their first run.
    """
    members: dict[str | int, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(i if group is None else group, []).append(i)
    packs: list[list[int]] = []
    for rivals in members.values():
        if packs and len(packs[-1]) + len(rivals) <= size:
            packs[-1] += rivals
        else:
            packs.append(list(rivals))
    return packs
