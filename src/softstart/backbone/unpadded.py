"""A batch without padding: rows [B, S, d] of different lengths one after the other, as N tokens [1, N, d]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softstart.backbone import kernels


@dataclass(frozen=True)
class Unpadded:
    """Where the tokens of padded rows go when the padding is left out; rows of one length are neighbors."""

    places: Tensor
    """[N]: the place of each token in the flattened padded batch, row * S + column."""
    groups: tuple[tuple[int, int], ...]
    """(number of rows, their length), the shortest first."""
    shape: tuple[int, int]
    """(B, S) of the padded batch."""

    @staticmethod
    def of(mask: Tensor, share: float = 1.0) -> Unpadded | None:
        """The layout of a batch by its mask [B, S].

        None where padding stays: tokens fill ``share`` of the batch or more; padding that is not on the right
        decides relative positions.
        """
        tokens = int(mask.sum())
        if not 0 < tokens < share * mask.numel() or not bool((mask[:, :-1] >= mask[:, 1:]).all()):
            return None
        lengths, order = mask.sum(1).sort(stable=True)
        places = torch.arange(mask.numel(), device=mask.device).view(mask.shape)[order][mask[order] != 0]
        length, rows = lengths.unique_consecutive(return_counts=True)
        groups = zip(rows.tolist(), length.tolist(), strict=True)
        return Unpadded(places, tuple(groups), (mask.shape[0], mask.shape[1]))

    def pack(self, x: Tensor) -> Tensor:
        """[B, S, d] → [1, N, d]."""
        return x.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, x: Tensor) -> Tensor:
        """[1, N, d] → [B, S, d], zero on padding."""
        rows, length = self.shape
        padded = x.new_zeros(rows * length, x.shape[-1]).index_copy(0, self.places, x[0])
        return padded.view(rows, length, -1)

    def find(self, places: Tensor) -> Tensor:
        """Where tokens at places [n] of the flattened padded batch are among the N: [n]."""
        found = places.new_zeros(self.shape[0] * self.shape[1])
        found[self.places] = torch.arange(len(self.places), device=places.device)
        return found[places]

    def attention(self, qkv: Tensor, heads: int, bias: Tensor, *, fused: bool) -> Tensor:
        """Self-attention within each row.

        Args:
            qkv: queries, keys and values [1, N, 3 H D].
            heads: H.
            bias: position bias [1, H, S, S], which depends on distances alone.
            fused: as in ``kernels.attention``.

        Returns:
            [1, N, H D].
        """
        groups = qkv[0].split([rows * length for rows, length in self.groups])
        attended = []
        for group, (rows, length) in zip(groups, self.groups, strict=True):
            near = bias[:, :, :length, :length]
            out = kernels.self_attention(group.view(rows, length, -1), heads, near, fused=fused)
            attended.append(out.flatten(0, 1))
        return torch.cat(attended)[None]
