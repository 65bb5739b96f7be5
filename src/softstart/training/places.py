"""Which runs train together, and which of a pack train at once: one that ends gives its place to the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence


class Places:
    """The places of a pack, and the runs that wait for one.

    Args:
        groups: numbers of runs that begin together, in the order in which they begin.
        most: upper bound on the runs that train at once; a larger group trains alone. None: all of them.
    """

    def __init__(self, groups: Iterable[Sequence[int]], most: int | None = None) -> None:
        self.groups = [list(group) for group in groups]
        self.waiting = self.groups.copy()
        sizes = [len(group) for group in self.groups]
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
            begun |= self._seat(self.waiting.pop(0))
        return begun

    def leave(self, place: int) -> int:
        """Free a place: the run that was there."""
        run = self.run_at[place]
        assert run is not None
        self.run_at[place] = None
        return run

    def restore(self, training: Mapping[int, int], waiting: Collection[int], count: int) -> dict[int, int]:
        """Go on where an earlier process was: on as many places, or on fewer if there are fewer now.

        Args:
            training: the runs in training there, by place.
            waiting: the runs that waited there.
            count: the number of places there.

        Returns:
            The earlier place of every run that goes on, by its place. Groups for which there is no place any
            more wait again, also those of their runs that had ended.
        """
        place_of = {run: place for place, run in training.items()}
        self.most = min(self.most, count)
        same = count <= len(self.run_at)
        self.run_at = [None] * min(count, len(self.run_at))
        self.waiting = []
        before: dict[int, int] = {}
        for group in self.groups:
            left = [run for run in group if run in place_of]
            if group[0] in waiting or (left and not self._fits(len(left))):
                self.waiting.append(group)
            elif same:
                for run in left:
                    self.run_at[place_of[run]] = run
                    before[place_of[run]] = place_of[run]
            else:
                before |= {place: place_of[run] for place, run in self._seat(left).items()}
        return before

    def _seat(self, runs: Sequence[int]) -> dict[int, int]:
        free = [place for place, run in enumerate(self.run_at) if run is None]
        seated = dict(zip(free[: len(runs)], runs, strict=True))
        for place, run in seated.items():
            self.run_at[place] = run
        return seated

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
