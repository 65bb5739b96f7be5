"""Chat formats: the user's turn, then the label where the assistant's begins; no special token twice."""

from __future__ import annotations

import warnings

import pytest
import torch
from tokenizers import processors

from helpers.families import random_backbone
from helpers.models import random_t5, toy_task, word_tokenizer
from softstart.backbone import collate
from softstart.errors import SoftstartError
from softstart.training.chat import mention_chat
from softstart.training.encoding import TextFormat, encode_task, encode_texts

TEMPLATE = (
    "{% for m in messages %}w50 {{ m.role == 'user' and 'w51' or 'w52' }} {{ m.content }} w53 {% endfor %}"
    "{% if add_generation_prompt %}w50 w52{% endif %}"
)
OPENING, CLOSING = [50, 51], [53, 50, 52]


def chat_backbone(placement="prefix", template=TEMPLATE):
    backbone = random_backbone("llama", torch.float64, placement)
    backbone.tokenizer.chat_template = template
    return backbone


def test_inputs_are_what_the_tokenizer_makes_of_a_conversation():
    backbone = chat_backbone()
    task = encode_task(toy_task("toy"), backbone, TextFormat("chat"))
    for i, example in enumerate(toy_task("toy").samples[13].train):
        turn = [{"role": "user", "content": example.input}]
        made = backbone.tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        assert task.train[13].inputs[i] == made
        assert made[:2] == OPENING
        assert made[-3:] == CLOSING
    assert task.label_ids == [[3, 1], [4, 1]]


def test_text_around_the_input_belongs_to_the_turn():
    rows = encode_task(toy_task("toy"), chat_backbone(), TextFormat("chat:w40 {input} w41"))
    bare = encode_task(toy_task("toy"), chat_backbone(template=None), TextFormat("{input}"))
    expected = [[*OPENING, 40, *ids, 41, *CLOSING] for ids in bare.train[13].inputs]
    assert rows.train[13].inputs == expected


def test_a_long_turn_is_cut_and_the_assistant_s_turn_stays():
    backbone = chat_backbone()
    texts = ["w10 w11 w12 w13 w14 w15", "w20"]
    ids = encode_texts(backbone, texts, 8, chat=True)
    assert ids == [[*OPENING, 10, 11, 12, *CLOSING], [*OPENING, 20, *CLOSING]]
    assert encode_texts(backbone, texts, None, chat=True)[0] == [*OPENING, 10, 11, 12, 13, 14, 15, *CLOSING]
    with pytest.raises(SoftstartError, match="takes 5 tokens of 5"):
        encode_texts(backbone, texts, 5, chat=True)


def wrapped(tokenizer):
    """A tokenizer that puts w2 before and the end token after every text, as some are configured to."""
    tokenizer.bos_token = "<unk>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> $A </s>", special_tokens=[("<unk>", 2), ("</s>", 1)]
    )
    return tokenizer


def test_special_tokens_are_neither_doubled_nor_between_input_and_label():
    backbone = random_backbone("llama", torch.float64)
    backbone.tokenizer = wrapped(word_tokenizer())
    assert backbone.tokenizer("w10").input_ids == [2, 10, 1]
    assert encode_texts(backbone, ["w10 w11", "<unk> w12"], None) == [[2, 10, 11], [2, 12]]
    assert encode_texts(backbone, ["w10 w11 w12"], 3) == [[2, 10]]
    assert encode_texts(backbone, ["w10"], 9, outputs=True) == [[10, 1]]
    backbone.tokenizer.chat_template = "<unk> " + TEMPLATE
    assert encode_texts(backbone, ["w10"], None, chat=True) == [[2, *OPENING, 10, *CLOSING]]
    assert encode_texts(backbone, ["w10"], 9, outputs=True, chat=True) == [[10, 1]]


def test_encoder_decoders_keep_the_end_of_their_inputs():
    backbone = random_t5()
    backbone.tokenizer = wrapped(word_tokenizer())
    assert encode_texts(backbone, ["w10"], None) == [[2, 10, 1]]
    with pytest.raises(SoftstartError, match="is an encoder-decoder: it has no chat format"):
        encode_texts(backbone, ["w10"], None, chat=True)


@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_where_the_prompt_goes(placement):
    """Before the whole conversation, or right before the label: the same as the words it is made of."""
    backbone = chat_backbone(placement)
    (ids,) = encode_texts(backbone, ["w10 w11"], None, chat=True)
    (label,) = encode_texts(backbone, ["w3"], 9, outputs=True, chat=True)
    words = torch.tensor([20, 21])
    prompt = backbone.embedding(words)[None]
    batch = collate([ids], [label], [0], pad=0)
    sums, _ = backbone.nll(prompt, batch)
    spelled = [20, 21, *ids] if placement == "prefix" else [*ids, 20, 21]
    whole = torch.tensor([spelled + label])
    logits = backbone.model(input_ids=whole).logits[0].log_softmax(-1)
    at = range(len(spelled) - 1, len(spelled) - 1 + len(label))
    expected = -sum(logits[i, token] for i, token in zip(at, label, strict=True))
    assert torch.allclose(sums[0], expected, rtol=1e-9)


def test_a_chat_model_without_its_format_is_mentioned_once():
    backbone = chat_backbone()
    with pytest.warns(UserWarning, match="'llama' has a chat format and is used without: template: chat"):
        encode_task(toy_task("toy"), backbone, TextFormat("{input}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_task(toy_task("toy"), chat_backbone(), TextFormat("{input}"))
        encode_task(toy_task("toy"), chat_backbone(), TextFormat("chat"))
        mention_chat(word_tokenizer(), "plain")


@pytest.mark.parametrize(("template", "reason"), [
    (None, "has no chat template"),
    ("{{ raise_exception('no') }}", "cannot be filled"),
    ("{% for m in messages %}w50{% endfor %}", "leaves the text out"),
])  # fmt: skip
def test_templates_that_cannot_be_used_are_refused(template, reason):
    with pytest.raises(SoftstartError, match=reason) as caught:
        encode_texts(chat_backbone(template=template), ["w10"], None, chat=True)
    assert "\n" not in str(caught.value)


def test_fields_are_checked_within_a_chat_template():
    with pytest.raises(SoftstartError, match="unknown field"):
        TextFormat("chat:{label}")
