"""Rows of different lengths one behind the other: a batch [B, S, d] as its N tokens [1, N, d], no padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softstart.backbone import kernels


@dataclass(frozen=True)
class Unpadded:
    """Where the tokens of padded rows go when the padding is left out; rows of one length lie together."""

    places: Tensor
    """[N]: the place of each token in the padded batch, its rows and columns counted through."""
    groups: tuple[tuple[int, int], ...]
    """(rows, their length), the shortest first."""
    shape: tuple[int, int]
    """(B, S) of the padded batch."""

    @staticmethod
    def of(mask: Tensor) -> Unpadded | None:
        """The layout of a batch by its mask [B, S].

        None where nothing is gained or all is left as it is: rows of one length; padding that is not on the
        right (relative positions would change); on a GPU, for which attention in small groups is slower than
        padding.
        """
        if mask.device.type != "cpu" or bool(mask.all()) or not bool((mask[:, :-1] >= mask[:, 1:]).all()):
            return None
        lengths, order = mask.sum(1).sort(stable=True)
        places = torch.arange(mask.numel()).view(mask.shape)[order][mask[order] != 0]
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
        parts = qkv[0].split([rows * length for rows, length in self.groups])
        found = []
        for part, (rows, length) in zip(parts, self.groups, strict=True):
            near = bias[:, :, :length, :length]
            out = kernels.self_attention(part.view(rows, length, -1), heads, near, fused=fused)
            found.append(out.flatten(0, 1))
        return torch.cat(found)[None]
