"""A search with enough beams finds the best of all outputs."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softstart.backbone.decoding import Decoding
from softstart.backbone.searches import beam_search, greedy_search

TOKENS, LENGTH, END, PAD = 3, 3, 1, 0


class Bigrams:
    """Rows whose next token depends on the last one alone: logits [B, V, V]."""

    def __init__(self, rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(rows, TOKENS, generator=generator, dtype=torch.float64)
        self.next = torch.randn(rows, TOKENS, TOKENS, generator=generator, dtype=torch.float64)

    def step(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(tokens)) * len(self.first) // len(tokens)
        assert (parents * len(self.first) // len(tokens)).equal(rows)  # beams stay in their row
        return self.next[rows, tokens]

    def score(self, row: int, output: tuple[int, ...], penalty: float, power: float) -> float:
        total, logits = 0.0, self.first[row]
        for place, token in enumerate(output):
            likely = torch.log_softmax(logits, -1)
            total += float(likely[token]) * (penalty if token in output[:place] else 1.0)
            logits = self.next[row, token]
        return total / len(output) ** power


def outputs() -> list[tuple[int, ...]]:
    """All that can be written: they end with the end token, or are as long as allowed."""
    ended = {
        ids[: ids.index(END) + 1] if END in ids else ids for ids in product(range(TOKENS), repeat=LENGTH)
    }
    return sorted(ended)


@given(seed=st.integers(0, 500), penalty=st.sampled_from([1.0, 1.8]), power=st.sampled_from([0.0, 0.7, 1.0]))
def test_beams_for_all_outputs_find_the_best_one(seed, penalty, power):
    bigrams = Bigrams(2, seed)
    decoding = Decoding(TOKENS**LENGTH, LENGTH, repetition_penalty=penalty, length_penalty=power)
    found = beam_search(bigrams.first, bigrams.step, decoding, torch.tensor([END]), PAD).tolist()
    for row, ids in enumerate(found):
        best = max(outputs(), key=lambda output: bigrams.score(row, output, penalty, power))
        assert ids == [*best, *[PAD] * (LENGTH - len(best))]


@pytest.mark.parametrize("seed", range(4))
def test_greedy_search_takes_the_likeliest_token_and_stops_after_the_end(seed):
    bigrams = Bigrams(4, seed)
    ids = greedy_search(bigrams.first, bigrams.step, Decoding(1, 6), torch.tensor([END]), PAD).tolist()
    for row, written in enumerate(ids):
        logits, going = bigrams.first[row], True
        for token in written:
            assert token == (int(logits.argmax()) if going else PAD)
            going, logits = going and token != END, bigrams.next[row, token]
