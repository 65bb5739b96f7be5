"""Prompts of one backbone as starts on another."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers.families import random_backbone
from helpers.own_tables import failed
from softstart import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.prompt.carried import FEWEST, Carried, shared_tokens
from softstart.yourtasks import named_start


def words(spelled, specials=("<pad>", "</s>")):
    vocab = {word: i for i, word in enumerate((*specials, *spelled))}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


def test_shared_tokens_are_the_same_words_with_the_space_before_them():
    names = [f"w{i}" for i in range(FEWEST)]
    source = words([*(f"\u2581{name}" for name in names), "joined", "mine"])
    target = words(["yours", "joined", *(f"\u0120{name}" for name in reversed(names))])
    mine, theirs = shared_tokens(source, target)
    assert len(mine) == FEWEST + 1
    pairs = {
        tuple(of.convert_ids_to_tokens([i])[0].strip("\u2581\u0120") for of, i in ((source, a), (target, b)))
        for a, b in zip(mine, theirs, strict=True)
    }
    assert pairs == {(name, name) for name in (*names, "joined")}
    with pytest.raises(SoftstartError, match="share 1 tokens, too few"):
        shared_tokens(words(["joined", "a"]), words(["joined", "b"]))


def test_a_prompt_of_words_becomes_these_words_and_a_map_that_exists_is_found():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(300, 6, generator=generator)
    weights, bias = torch.randn(6, 9, generator=generator), torch.randn(9, generator=generator)
    target = source @ weights + bias
    carried = Carried(source[[5, 17]] * 3.0, source, target)  # the size of a row does not matter to its words
    assert carried.nearest_words().equal(target[[5, 17]])
    exact = carried.prompt @ weights + bias
    assert float((carried.mapped() - exact).norm() / exact.norm()) < 0.03  # ridge regression shrinks a little


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_both_are_initializers(tmp_path, monkeypatch, placement):
    tiny = Backbone.from_pretrained("softstart/tiny", device="cpu", placement=placement)
    generator = torch.Generator().manual_seed(1)
    SoftPrompt.of(tiny, torch.randn(7, tiny.width, generator=generator)).save(tmp_path / "start")
    target = random_backbone("llama", torch.float32)
    monkeypatch.setattr(target, "tokenizer", tiny.tokenizer)
    table = torch.randn(len(tiny.vocabulary), target.width, generator=generator)
    monkeypatch.setattr(type(target), "vocabulary", property(lambda self: table))
    for name in ("nearest_words", "mapped"):
        start = named_start(target, f"{name}:{tmp_path / 'start'}", [], length=20)
        assert start.tensor.shape == (7, target.width)
    assert start.info["init"].startswith("mapped:")
    rows = {tuple(row) for row in table.tolist()}
    words_of = named_start(target, f"nearest_words:{tmp_path / 'start'}", []).tensor
    assert all(tuple(row) in rows for row in words_of.tolist())


def test_a_prompt_that_does_not_say_its_backbone_is_refused(tmp_path):
    import numpy as np

    np.save(tmp_path / "start.npy", np.zeros((3, 8), dtype=np.float32))
    (tmp_path / "mine.csv").write_text("input,label\n" + "a film,good\na bad film,bad\n" * 6)
    error = failed(
        "adapt", "--init", "mapped:start.npy", "--train", "mine.csv", "--device", "cpu", cwd=tmp_path
    )
    assert "start.npy: the prompt does not say what backbone it was made on" in error
