"""The embedded model: lossless tokenizer, resumable pretraining, shipped weights, held-back entities."""

import json
import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from softstart.errors import SoftstartError
from softstart.tiny import corpus, weights_path
from softstart.tiny.answers import ANSWERS
from softstart.tiny.batches import corrupt, split
from softstart.tiny.claims import CLAIMS, verify
from softstart.tiny.documents import DOCUMENTS
from softstart.tiny.pretrain import Recipe, file_digest, learning_rate, pretrain
from softstart.tiny.world import FIELDS, world

TINY = {"d_model": 16, "d_ff": 32, "num_heads": 2, "d_kv": 8, "num_layers": 1}


def read_manifest():
    return json.loads((weights_path() / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(weights_path())


@pytest.fixture(scope="module")
def model():
    return AutoModelForSeq2SeqLM.from_pretrained(weights_path()).eval()


def test_torch_stays_out_of_the_corpus():
    modules = "sys, softstart.tiny, softstart.tiny.corpus, softstart.gym.mini"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=300, deadline=None)
def test_tokenizer_is_lossless(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.strip()


@pytest.mark.parametrize(
    "text", ["Ünïcödé ☃ 漢字 🎉", "x = {1: 'a'};\n\tdone", "  two  spaces ", "[SEP] 3.14 O'Neil"]
)
def test_tokenizer_on_real_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text.strip()


def test_words_of_the_world_are_one_token_and_frequent_words_come_first(tokenizer):
    assert all(len(tokenizer(word).input_ids) == 2 for word in world(0).words)
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert tokenizer.convert_ids_to_tokens(3) == "Ġthe"
    assert tokenizer.unk_token_id not in tokenizer("漢字 ☃ \x00").input_ids


def test_weights_load_untied_through_plain_transformers(model, tokenizer):
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    assert model.encoder.embed_tokens.weight is model.shared.weight
    assert model.config.dropout_rate == 0
    assert not model.config.scale_decoder_outputs
    assert len(tokenizer) == model.config.vocab_size


def test_manifest_belongs_to_the_weights():
    manifest = read_manifest()
    assert manifest["finished"]
    for name, digest in manifest["sha256"].items():
        assert file_digest(weights_path() / name) == digest
    assert manifest["curve"][-1]["tokens"] == manifest["seen"] >= manifest["tokens"]


def test_the_model_knows_its_world(model, tokenizer):
    questions = {
        "anna is in the barn. carla is in the tower. where is carla?": "tower",
        "is it so that the owl is a fish?": "no",
        "what is the capital of norvia?": "arvel",
        "what is not hot is": "cold",
        "leo gave the drum to gina. who has the drum now?": "gina",
        "hugo won the race. what did hugo feel?": "joy",
    }
    inputs = tokenizer(list(questions), return_tensors="pt", padding=True)
    out = tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=6), skip_special_tokens=True)
    right = [text.strip() == answer for text, answer in zip(out, questions.values(), strict=True)]
    assert sum(right) >= 5, list(zip(questions, out, strict=True))


def test_missing_weights_say_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr("softstart.tiny.__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(SoftstartError, match="softstart tiny pretrain"):
        weights_path()


@pytest.fixture
def unprobed(monkeypatch):
    """Leave out what takes long in a short run."""
    nothing = {"claims": {"mean": 0.0}, "answers": {"mean": 0.0}}
    monkeypatch.setattr("softstart.tiny.probes.probe", lambda *_: nothing)
    monkeypatch.setattr("softstart.tiny.probes.dev_loss", lambda *_: {})


@pytest.mark.usefixtures("unprobed")
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    run = {"tokens": 12_000, "recipe": Recipe(shape=TINY), "probe_every": 2.0, "log": lambda _: None}
    pretrain(tmp_path / "whole", **run)
    pretrain(tmp_path / "halves", **run, stop_after=5)
    assert (tmp_path / "halves" / "training.safetensors").is_file()
    assert not json.loads((tmp_path / "halves" / "manifest.json").read_text())["finished"]
    pretrain(tmp_path / "halves", **run)
    whole, halves = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    said: list[str] = []
    pretrain(tmp_path / "halves", **{**run, "log": said.append})
    assert "already trained" in said[-1]
    assert {path.suffix for path in (tmp_path / "halves").iterdir()} == {".json", ".safetensors"}


@pytest.mark.usefixtures("unprobed")
def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run = {"recipe": Recipe(shape=TINY), "log": lambda _: None}
    pretrain(tmp_path, tokens=12_000, stop_after=1, **run)
    with pytest.raises(SoftstartError, match="other settings"):
        pretrain(tmp_path, tokens=24_000, stop_after=1, **run)


def test_the_schedule_rises_holds_and_falls():
    rates = [learning_rate(i / 100) for i in range(101)]
    assert rates[1] == max(rates) == rates[40]
    assert rates[0] < rates[1]
    assert all(x > y for x, y in pairwise(rates[41:]))
    assert rates[-1] < 0.01 * max(rates)


@given(st.lists(st.integers(10, 99), min_size=3, max_size=40), st.integers(0, 10**6))
def test_corrupting_and_cutting_lose_nothing(ids, seed):
    r = random.Random(seed)
    sentinels = list(range(200, 232))
    source, target = corrupt(ids, sentinels, r)
    hidden: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels:
            hidden[token] = []
        else:
            hidden[next(reversed(hidden))].append(token)
    assert [t for s in source[:-1] for t in hidden.get(s, [s])] == ids
    left, right = split(ids, frozenset({10}), r)
    assert left[:-1] + right[:-1] == ids
    assert len(right) > 1


def test_the_corpus_is_a_function_of_seed_and_step():
    w = world(0)
    one, two = (list(corpus.stream(w, seed, 50)) for seed in (3, 4))
    assert one == list(corpus.stream(w, 3, 50))
    assert one != two


def test_claims_are_balanced():
    w, r = world(0), random.Random(0)
    good = {"yes", "true", "right"}
    for kind in CLAIMS:
        share = sum(verify(w, r, {kind: 1})[1] in good for _ in range(600)) / 600
        assert 0.42 < share < 0.58, kind.__name__


def test_held_back_entities_are_told_but_never_asked():
    w, r = world(0), random.Random(0)
    held = w.held.entities - w.seen.entities
    stated = {word for kind in DOCUMENTS for _ in range(1500) for word in re.findall(r"\w+", kind(w, r))}
    assert len(held) > 150
    assert held <= stated
    # made-up words can by chance spell a held-back one; with the seed fixed, they do not here
    for kind in CLAIMS:
        for _ in range(300):
            words = set(re.findall(r"\w+", " ".join(verify(w, r, {kind: 1}))))
            assert not words & (held - {"dug", "pike"}), kind.__name__
    for ask in ANSWERS:
        for _ in range(300):
            assert not set(re.findall(r"\w+", " ".join(ask(w, r)))) & (held - {"dug", "pike"}), ask.__name__


def test_documents_ask_nothing_and_no_field_names_occur():
    w, r = world(0), random.Random(1)
    assert not any("?" in kind(w, r) for kind in DOCUMENTS for _ in range(300))
    field = re.compile(rf"\b({'|'.join(FIELDS)}):")
    assert not any(field.search(text) for text in corpus.stream(w, 7, 20_000))


def test_no_path_of_a_machine_in_the_weights():
    for path in Path(weights_path()).glob("*.json"):
        assert "/tmp" not in path.read_text(encoding="utf-8")
