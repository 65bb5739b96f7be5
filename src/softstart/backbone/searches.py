"""Greedy and beam search over anything that gives logits, by the rules of transformers' ``generate``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softstart.backbone.decoding import Decoding, penalized

NEVER = -1e9
"""Added to the score of what must not be chosen."""

Step = Callable[[Tensor, Tensor], Tensor]
"""(the beams [B k] that the next tokens continue, those tokens [B k]) → logits [B k, V] of what follows."""


@torch.no_grad()
def greedy_search(logits: Tensor, step: Step, decoding: Decoding, ends: Tensor, pad: int) -> Tensor:
    """Token ids [B, ≤ max_new_tokens] of the likeliest token each time; arguments as ``beam_search``."""
    rows = torch.arange(len(logits), device=logits.device)
    ids = torch.empty(len(rows), 0, dtype=torch.long, device=logits.device)
    going = torch.ones_like(rows, dtype=torch.bool)
    while True:
        token = penalized(logits, ids, decoding.repetition_penalty).argmax(-1)
        token = torch.where(going, token, torch.full_like(token, pad))
        ids = torch.cat((ids, token[:, None]), 1)
        going = going & ~torch.isin(token, ends)
        if ids.shape[1] == decoding.max_new_tokens or not bool(going.any()):
            return ids
        logits = step(rows, token)


@torch.no_grad()
def beam_search(logits: Tensor, step: Step, decoding: Decoding, ends: Tensor, pad: int) -> Tensor:
    """The best output of every row, found with k beams and early stopping.

    Of each row the 2 k likeliest continuations are looked at (more if there are several end tokens). Those
    among the first k that end are finished; their score is their log-likelihood over their length to the
    power of the length penalty. The first k that go on run on. A row is over when it has k finished outputs,
    or when its best running one is worse than all of them.

    Args:
        logits: of the first token of every row [B, V].
        step: gives those of the next one.
        decoding: k, bounds and penalties.
        ends: tokens that end an output.
        pad: the token after the end.

    Returns:
        Token ids [B, max_new_tokens].
    """
    rows, width, device = len(logits), decoding.num_beams, logits.device
    wide = torch.promote_types(logits.dtype, torch.float32)
    ids = torch.full((rows, width, decoding.max_new_tokens), pad, device=device)
    scores = torch.full((rows, width), NEVER, dtype=wide, device=device)
    finished = torch.zeros(rows, width, dtype=torch.bool, device=device)
    going = torch.ones(rows, 1, dtype=torch.bool, device=device)
    beams = _Beams(decoding, ends, ids, scores.clone(), ids.clone(), scores, finished, going)
    beams.scores[:, 0] = 0.0  # all beams are the same at first: only one of them counts
    first = width * torch.arange(rows, device=device)[:, None]
    logits = logits.repeat_interleave(width, 0)
    for length in range(1, decoding.max_new_tokens + 1):
        parents, over = beams.extend(logits.to(wide), length)
        if over:
            break
        logits = step((parents + first).flatten(), beams.ids[:, :, length - 1].flatten())
    return beams.done[:, 0]


@dataclass
class _Beams:
    """k running and k finished outputs [B, k, T] of every row with their scores [B, k].

    ``finished`` says which places of finished outputs are taken, ``going`` [B, 1] which rows can improve.
    """

    decoding: Decoding
    ends: Tensor
    ids: Tensor
    scores: Tensor
    done: Tensor
    done_scores: Tensor
    finished: Tensor
    going: Tensor

    def extend(self, logits: Tensor, length: int) -> tuple[Tensor, bool]:
        """Add token number ``length``: (the beams [B, k] that run on, whether the search is over)."""
        rows, width = self.scores.shape
        written = self.ids.flatten(0, 1)[:, : length - 1]
        likely = penalized(torch.log_softmax(logits, -1), written, self.decoding.repetition_penalty)
        totals = (likely.view(rows, width, -1) + self.scores[:, :, None]).flatten(1)
        best, at = totals.topk(max(2, 1 + len(self.ends)) * width)
        parents, tokens = at // likely.shape[1], at % likely.shape[1]
        ids = _chosen(self.ids, parents)
        ids[:, :, length - 1] = tokens
        ending = torch.isin(tokens, self.ends) | (length == self.decoding.max_new_tokens)
        self._finish(ids, best, ending, length)
        self.scores, kept = (best + NEVER * ending).topk(width)
        self.ids = _chosen(ids, kept)
        reachable = self.scores[:, :1] / length**self.decoding.length_penalty
        worst = torch.where(self.finished, self.done_scores.amin(1, keepdim=True), NEVER)
        self.going = self.going & (reachable > worst).any(1, keepdim=True)
        over = not bool(self.going.any()) or bool(self.finished.all()) or bool(ending.all())
        return parents.gather(1, kept), over

    def _finish(self, ids: Tensor, best: Tensor, ending: Tensor, length: int) -> None:
        """Keep the k best of all finished outputs."""
        width = self.scores.shape[1]
        ending = ending & (torch.arange(ids.shape[1], device=ids.device) < width)
        closed = self.finished.all(1, keepdim=True) | ~self.going
        scores = best / length**self.decoding.length_penalty + NEVER * closed + NEVER * ~ending
        self.done_scores, kept = torch.cat((self.done_scores, scores), 1).topk(width)
        self.done = _chosen(torch.cat((self.done, ids), 1), kept)
        self.finished = torch.cat((self.finished, ending), 1).gather(1, kept)


def _chosen(ids: Tensor, which: Tensor) -> Tensor:
    """Outputs [B, n, T] in the order of ``which`` [B, m]."""
    return ids.gather(1, which[:, :, None].expand(-1, -1, ids.shape[2]))
