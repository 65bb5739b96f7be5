"""Candidate outputs as a tree: tokens that several of them begin with are read once for a row.

A thousand labels share many beginnings. The tokens of a tree are read as one sequence in which a token sees
only those that it continues, so that every candidate gets the log-likelihood that it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from softstart.backbone.batch import IGNORE

NODES = 256
"""The most nodes of a tree: each of them attends to all others, seen or hidden."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """Some candidates, with what they begin with as nodes.

    Node 0 is the empty beginning, and a node comes after the one that it continues. Nothing is predicted from
    the last token of a candidate, so it is an edge without a node.

    Args:
        columns: [c] which candidates they are.
        tokens: [N] the last token of every node; 0 for node 0.
        parents: [N] the node that every node continues; 0 for node 0.
        depths: [N] tokens of every node.
        nodes: [E] where every edge begins, in ascending order.
        follows: [E] the token of every edge.
        paths: [c, T] the edges of every candidate, E after its last one.
    """

    columns: Tensor
    tokens: Tensor
    parents: Tensor
    depths: Tensor
    nodes: Tensor
    follows: Tensor
    paths: Tensor

    def __len__(self) -> int:
        """N."""
        return len(self.tokens)

    @cached_property
    def sees(self) -> Tensor:
        """[N, N] whether node j is node i or one that it continues."""
        seen = torch.eye(len(self), dtype=torch.bool, device=self.tokens.device)
        for node, parent in enumerate(self.parents.tolist()[1:], 1):
            seen[node] |= seen[parent]
        return seen

    def values(self, logits: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
        """Log-likelihoods [b, e] of the edges of nodes ``begin`` to ``end``, from their logits [b, n, V]."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mine = (self.nodes >= begin) & (self.nodes < (len(self) if end is None else end))
        at = self.nodes[mine] - begin
        return wide[:, at, self.follows[mine]] - torch.logsumexp(wide, -1)[:, at]

    def values_by(self, head: Callable[[Tensor], Tensor], states: Tensor, at_once: int) -> Tensor:
        """As ``values``, from states [b, N, d] and the layer that makes logits of them, a few at a time."""
        ends = [*range(at_once, len(self), at_once), len(self)]
        parts = zip([0, *ends], ends, strict=False)
        return torch.cat([self.values(head(states[:, a:z]), a, z) for a, z in parts], 1)

    def sums(self, values: Tensor) -> Tensor:
        """Log-likelihoods [b, c] of the candidates from those of all edges [b, E]."""
        ended = values.new_zeros(len(values), 1)
        return torch.cat((values, ended), 1)[:, self.paths].sum(2)


def trees(candidates: Tensor, most: int = NODES) -> list[Tree]:
    """Candidates [C, T] as trees of at most ``most`` nodes, or of one candidate each.

    Those that share a beginning are in one tree or in neighboring ones, those without tokens in none.
    """
    rows = [tuple(token for token in row if token != IGNORE) for row in candidates.tolist()]
    found: list[Tree] = []
    begun: dict[Tokens, int] = {(): 0}
    members: list[tuple[Tokens, int]] = []
    for row, column in sorted((row, column) for column, row in enumerate(rows) if row):
        beginnings = [row[:n] for n in range(1, len(row))]
        if members and len(begun) + sum(b not in begun for b in beginnings) > most:
            found.append(_tree(members, begun, candidates.device))
            begun, members = {(): 0}, []
        for beginning in beginnings:
            begun.setdefault(beginning, len(begun))
        members.append((row, column))
    return [*found, _tree(members, begun, candidates.device)] if members else found


def _tree(members: Sequence[tuple[Tokens, int]], begun: Mapping[Tokens, int], device: torch.device) -> Tree:
    """The tree of candidates and their columns, given the node of everything that they begin with."""
    followed = [[(begun[row[:n]], row[n]) for n in range(len(row))] for row, _ in members]
    edges = {edge: i for i, edge in enumerate(sorted({edge for path in followed for edge in path}))}
    longest = max(map(len, followed))
    paths = [[edges[edge] for edge in path] + [len(edges)] * (longest - len(path)) for path in followed]

    def tensor(numbers: Sequence[Any]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    return Tree(
        tensor([column for _, column in members]),
        tensor([0, *(beginning[-1] for beginning in begun if beginning)]),
        tensor([begun[beginning[:-1]] for beginning in begun]),
        tensor([len(beginning) for beginning in begun]),
        tensor([node for node, _ in edges]),
        tensor([token for _, token in edges]),
        tensor(paths),
    )


def sets_of(candidates: Tensor, of: Tensor | None, most: int | None) -> tuple[list[list[Tree]], Tensor]:
    """The trees of each of L sets of candidates [L, C, T], and the set [B] of every row.

    Args:
        candidates: token ids, ``IGNORE`` on padding.
        of: [B] the set of every row; None: row b has set b, and equal ones are brought together.
        most: tokens of a pass, which bound the nodes of a tree.
    """
    if of is None:
        candidates, of = torch.unique(candidates, dim=0, return_inverse=True)
    return [trees(one, min(NODES, most or NODES)) for one in candidates], of
