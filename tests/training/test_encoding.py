"""From text to token rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.families import random_backbone, random_model
from helpers.models import reads_with, word_tokenizer
from softstart.backbone import IGNORE, CausalBackbone, Seq2SeqBackbone
from softstart.errors import SoftstartError
from softstart.gym.task import Example, Sample, Task
from softstart.training.encoding import SPARE_TOKENS, TextFormat, encode_task, epoch_slice, rng_for, to_batch


def task(*rows: Example, kind="text2text"):
    return Task("my_task", kind, "EM", "other", {13: Sample(13, rows, rows[:1])}, rows)


def test_the_default_template_is_crossfits():
    tokenizer = word_tokenizer()
    seen = []

    class Spy:
        def __len__(self):
            return len(tokenizer)

        def __call__(self, texts, **options):
            seen.extend(texts)
            return tokenizer(texts, **options)

    encode_task(task(Example("w5", ("w6",))), reads_with(Spy()), TextFormat())
    assert " [my_task] w5" in seen


def test_texts_are_truncated_and_generation_is_bounded_by_the_longest_output():
    text = TextFormat("{input}", max_input_tokens=3, max_output_tokens=2)
    rows = encode_task(task(Example("w5 w6 w7 w8", ("w9 w10 w11",))), reads_with(word_tokenizer()), text)
    assert rows.train[13].inputs == [[5, 6, 7]]
    assert rows.train[13].outputs == [[[9, 10]]]
    assert rows.max_new_tokens == 2 + SPARE_TOKENS
    assert rows.train[13].references == [("w9 w10 w11",)]


def test_one_of_several_answers_is_drawn_and_rows_without_one_are_not_trained_on():
    examples = [Example("w5", ("w6", "w7 w8", "w9")), Example("w10", ())]
    rows = encode_task(task(*examples), reads_with(word_tokenizer()), TextFormat("{input}")).train[13]
    assert rows.trainable == [0]
    drawn = {tuple(rows.pick([0], rng_for(i))[0][1]) for i in range(50)}
    assert drawn == {(6,), (7, 8), (9,)}
    assert rows.pick([0, 0], rng_for(3)) == rows.pick([0, 0], rng_for(3))


def test_batches_are_padded_right_and_name_their_prompts():
    batch = to_batch([([5, 6], [7]), ([8], [9, 10, 11])], [1, 0], pad=0, seed=4)
    assert batch.input_ids.tolist() == [[5, 6], [8, 0]]
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]
    assert batch.labels.tolist() == [[7, IGNORE, IGNORE], [9, 10, 11]]
    assert (batch.run.tolist(), batch.seed) == ([1, 0], 4)


def test_labels_are_those_of_classification_tasks_only():
    rows = (Example("w5", ("w7",)), Example("w6", ("w6",)))
    for kind, labels in (("classification", ("w6", "w7")), ("text2text", ())):
        encoded = encode_task(task(*rows, kind=kind), reads_with(word_tokenizer()), TextFormat("{input}"))
        assert encoded.labels == labels
        assert encoded.label_ids == [[int(w[1:])] for w in labels]


def test_outputs_end_as_the_backbone_says_whatever_else_was_made_of_its_tokenizer():
    """A causal backbone once wrote a flag onto the tokenizer, and every later encoding saw it."""
    tokenizer, one = word_tokenizer(), task(Example("w5", ("w6",)))
    bart = Seq2SeqBackbone(random_model("bart"), tokenizer)
    before = encode_task(one, bart, TextFormat()).train[13].outputs
    gpt2 = CausalBackbone(random_model("gpt2"), tokenizer)
    assert encode_task(one, gpt2, TextFormat()).train[13].outputs == [[[6, tokenizer.eos_token_id]]]
    assert encode_task(one, bart, TextFormat()).train[13].outputs == before == [[[6]]]


def test_a_tokenizer_in_place_of_the_backbone_is_refused():
    gpt2 = random_backbone("gpt2")
    with pytest.raises(SoftstartError, match="encode_task needs the backbone, not a"):
        encode_task(task(Example("w5", ("w6",))), gpt2.tokenizer, TextFormat())


@given(n=st.integers(1, 9), start=st.integers(0, 40), count=st.integers(0, 30), cut=st.integers(0, 30))
def test_epochs_are_permutations_and_can_be_entered_anywhere(n, start, count, cut):
    whole = epoch_slice(n, 0, 100, 7)
    assert epoch_slice(n, start, count, 7) == whole[start : start + count]
    for epoch in range(100 // n):
        assert sorted(whole[epoch * n : (epoch + 1) * n]) == list(range(n))
    cut = min(cut, count)
    parts = epoch_slice(n, start, cut, 7) + epoch_slice(n, start + cut, count - cut, 7)
    assert parts == epoch_slice(n, start, count, 7)
