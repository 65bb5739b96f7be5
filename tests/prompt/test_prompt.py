"""Initializers, files, and PEFT reading what we write."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sqlite3
import stat
import warnings
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.families import random_backbone, random_model
from helpers.models import prompts, random_batch, random_t5, relative, word_tokenizer
from helpers.paths import ROOT
from helpers.shared import SHARED
from helpers.toy_study import SOFTSTART, STUDY, call, make_world
from softstart.backbone import TINY, Backbone, Decoding, collate, load_backbone
from softstart.errors import SoftstartError
from softstart.prompt import (
    Embeddings,
    SoftPrompt,
    class_labels,
    from_prompt,
    from_tensor,
    gaussian,
    nearest_source,
    ordinary_tokens,
    similarity,
    source_average,
    task_names,
    text,
    vocabulary,
)
from softstart.storage.tensors import load_tensors, save_tensors
from softstart.study import parse_study, run_study
from softstart.study.plan.inputs import Inputs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_vocabulary_start_is_distinct_rows_of_the_table():
    table = torch.randn(50, 4)
    start = vocabulary(table, range(10, 30))(12, generator())
    ids = [(table == row).all(1).nonzero().item() for row in start]
    assert len(set(ids)) == 12
    assert set(ids) <= set(range(10, 30))
    with pytest.raises(SoftstartError, match="21 rows is longer than the list of 20 tokens"):
        vocabulary(table, range(10, 30))(21, generator())


def test_task_name_start_is_means_then_vocabulary():
    table = torch.randn(50, 4)
    draw = task_names(table, [[1, 2], [3]], vocabulary(table, range(10, 30)))
    start = draw(5, generator())
    assert torch.allclose(start[0], table[[1, 2]].mean(0))
    assert torch.equal(start[1], table[3])
    assert torch.equal(start[2:], vocabulary(table, range(10, 30))(3, generator()))
    assert torch.equal(draw(1, generator()), start[:1])


def test_starts_from_labels_text_and_source_prompts(tmp_path):
    table = torch.randn(50, 4)
    labels = class_labels(table, [[1, 2], [3]], vocabulary(table, range(10, 30)))(3, generator())
    assert torch.equal(labels[1], table[3])
    assert torch.equal(text(table, [7, 8, 9])(5, generator()), table[[7, 8, 9, 7, 8]])
    assert torch.equal(text(table, [7, 8, 9])(2, generator()), table[[7, 8]])
    with pytest.raises(SoftstartError, match="the text to start from is empty"):
        text(table, [])
    prompts = torch.randn(6, 3, 4, generator=generator(4))
    assert torch.allclose(source_average(prompts)(3, generator()), prompts.mean(0))
    target = prompts[4] * 2.5  # nearness is of direction, and of all rows with all rows
    pairs = [
        sum(torch.cosine_similarity(a, b, dim=0) for a in target for b in source) / 9 for source in prompts
    ]
    assert torch.allclose(similarity(target, prompts), torch.stack(pairs), atol=1e-6)
    nearest = int(torch.stack(pairs).argmax())
    assert torch.equal(nearest_source(target, prompts)(3, generator()), prompts[nearest])
    SoftPrompt(prompts[0]).save(tmp_path / "p.safetensors")
    assert torch.equal(from_prompt(tmp_path / "p.safetensors")(3, generator()), prompts[0])
    tokenizer = word_tokenizer()
    assert ordinary_tokens(tokenizer, 4) == [3, 4, 5, 6]


def test_other_starts():
    assert gaussian(6, 0.1)(1000, generator()).std().item() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(from_tensor(torch.ones(3, 2))(3, generator()), torch.ones(3, 2))
    with pytest.raises(SoftstartError, match="the start has length 3 but prompt_length is 4"):
        from_tensor(torch.ones(3, 2))(4, generator())


@given(length=st.integers(1, 5), width=st.integers(1, 7), folder=st.booleans(), seed=st.integers(0, 99))
def test_files_hold_exactly_what_was_saved(tmp_path_factory, length, width, folder, seed):
    path = tmp_path_factory.mktemp("prompt") / ("adapter" if folder else "p.safetensors")
    prompt = SoftPrompt(
        torch.randn(length, width, generator=generator(seed)), "some/model", "abc", "prefix", {"lr": 0.5}
    )
    prompt.save(path)
    back = SoftPrompt.load(path)
    assert torch.equal(back.tensor, prompt.tensor)
    assert (back.backbone, back.backbone_digest, back.placement, back.info) == (
        "some/model", "abc", "prefix", {"lr": 0.5},
    )  # fmt: skip


def test_peft_loads_the_adapter_and_computes_the_same_loss(tmp_path):
    backbone = random_t5(torch.float32)
    stack = prompts(backbone, runs=1)
    SoftPrompt(stack[0], backbone.name).save(tmp_path / "adapter")
    batch = random_batch([(6, 3, 0)])
    sums, counts = backbone.nll(stack, batch)
    model = peft.PeftModel.from_pretrained(random_t5(torch.float32).model, str(tmp_path / "adapter")).eval()
    theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert relative(sums[0] / counts[0], theirs.detach()) < 1e-6


def test_a_suffix_prompt_is_not_offered_to_peft(tmp_path):
    prompt = SoftPrompt(torch.ones(2, 3), placement="suffix")
    prompt.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "adapter_config.json").exists()
    assert SoftPrompt.load(tmp_path / "adapter").placement == "suffix"
    with pytest.raises(SoftstartError, match="a suffix prompt cannot be a PEFT adapter: PEFT puts every"):
        prompt.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("name", "submodules"), [("mt5", None), ("mt5", 1), ("bart", None), ("gpt2", None)])
def test_adapters_that_peft_wrote_are_read_and_give_its_loss(tmp_path, name, submodules):
    """PEFT's default for encoder-decoders holds 2P rows; it computes with the first P of them."""
    backbone = random_backbone(name, torch.float32)
    config = peft.PromptTuningConfig(
        task_type=backbone.peft_task, num_virtual_tokens=3, num_transformer_submodules=submodules,
        base_model_name_or_path="some/model", revision="f00d",
    )  # fmt: skip
    model = peft.get_peft_model(random_model(name, torch.float32), config).eval()
    model.save_pretrained(tmp_path)
    prompt = SoftPrompt.from_pretrained(tmp_path)
    doubled = name != "gpt2" and submodules is None
    assert len(load_tensors(tmp_path / "adapter_model.safetensors")[0]["prompt_embeddings"]) == 3 * (
        1 + doubled
    )
    assert prompt.tensor.shape == (3, 16)
    assert ("the adapter held 6 rows for 3 virtual tokens" in prompt.info.get("note", "")) == doubled
    assert prompt.peft_task == backbone.peft_task
    batch = random_batch([(6, 3, 0)])
    sums, counts = backbone.nll(prompt.tensor[None], batch)
    ids, labels = batch.input_ids, batch.labels
    if name == "gpt2":
        ids = torch.cat((ids, labels), 1)
        labels = torch.cat((torch.full_like(batch.input_ids, -100), labels), 1)
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
    assert abs(sums[0] / counts[0] - theirs) < 1e-6 * theirs


def documented(mark):
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    return page.split(mark)[1].split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_the_documented_recipe_goes_on_training_in_peft(tmp_path, name):
    """The code of docs/ecosystem.md as it stands, then transformers' Trainer."""
    backbone = random_backbone(name, torch.float32)
    SoftPrompt.of(backbone, prompts(backbone, runs=1)[0]).save_pretrained(tmp_path / "start")
    with pytest.raises(ValueError, match="Cannot set a prompt learning adapter to trainable"):
        peft.PeftModel.from_pretrained(random_model(name), str(tmp_path / "start"), is_trainable=True)
    recipe = documented("<!-- recipe -->")
    scope = {"model": random_model(name, torch.float32), "start": str(tmp_path / "start")}
    exec(recipe, scope)
    model = scope["model"]
    weights = model.prompt_encoder["default"].embedding.weight
    before = weights.detach().clone()
    assert torch.equal(before, SoftPrompt.load(tmp_path / "start").tensor)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained == ["prompt_encoder.default.embedding.weight"]
    row = {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [7, 8, 9]}
    options = transformers.TrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=5, learning_rate=0.1, report_to=[], use_cpu=True,
        disable_tqdm=True, logging_strategy="no", save_strategy="no", remove_unused_columns=False,
    )  # fmt: skip
    with torch.no_grad():
        batch = {key: torch.tensor([value]) for key, value in row.items()}
        loss = float(model(**batch).loss)
    transformers.Trainer(model, options, train_dataset=[row] * 4).train()
    model.eval()
    with torch.no_grad():
        assert float(model(**batch).loss) < loss
    model.save_pretrained(tmp_path / "after")
    after = SoftPrompt.from_pretrained(tmp_path / "after").tensor
    assert torch.equal(after, weights)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("name", ["bart", "gpt2"])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_documented_serving_by_plain_transformers_writes_what_we_write(name, beams, capsys):
    backbone = random_backbone(name, torch.float32)
    prompt = SoftPrompt.of(backbone, prompts(backbone, runs=1, scale=2.0)[0])
    code = (
        documented("<!-- serve -->")
        .replace("the film was good", "w5 w6 w7")
        .replace("=8)", f"=8, num_beams={beams})")
    )
    exec(code, {"model": backbone.model, "tokenizer": backbone.tokenizer, "prompt": prompt, "torch": torch})
    batch = collate([[5, 6, 7]], [[]], [0], pad=0)
    (ours,) = backbone.generate(prompt.tensor[None], batch, Decoding(beams, max_new_tokens=8))
    assert capsys.readouterr().out.strip() == ours


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_documented_pipeline_writes_what_we_write(name, tmp_path, capsys):
    backbone = random_backbone(name, torch.float32)
    prompt = SoftPrompt.of(backbone, prompts(backbone, runs=1, scale=2.0)[0])
    prompt.save_pretrained(tmp_path)
    code = documented("<!-- pipeline -->").replace("the film was good", "w5 w6 w7")
    exec(code, {"model": backbone.model, "tokenizer": backbone.tokenizer, "folder": str(tmp_path)})
    (ours,) = backbone.generate(
        prompt.tensor[None], collate([[5, 6, 7]], [[]], [0], pad=0), Decoding(max_new_tokens=8)
    )
    assert capsys.readouterr().out.strip() == ours
    with pytest.raises(KeyError, match=r"removed from transformers|Unknown task"):
        transformers.pipeline("text2text-generation")
    # Nor does transformers load such an adapter by itself, which is why its server cannot either.
    with pytest.raises(ValueError, match="does not support prompt learning"):
        backbone.model.load_adapter(str(tmp_path))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_the_documented_body_for_vllm_holds_what_we_compute_with(name):
    """Read as vLLM's ``safe_load_prompt_embeds`` does; vLLM itself is not run."""
    backbone = random_backbone(name, torch.float32)
    prompt = SoftPrompt.of(backbone, prompts(backbone, runs=1, scale=2.0)[0])
    scope = {"model": backbone.model, "tokenizer": backbone.tokenizer, "prompt": prompt, "torch": torch}
    exec(documented("<!-- vllm -->").replace("the film was good", "w5 w6 w7"), scope)
    body = json.loads(json.dumps(scope["body"]))
    raw = base64.b64decode(body["prompt_embeds"], validate=True)
    embeds = torch.load(io.BytesIO(raw), weights_only=True)
    assert embeds.dim() == 2
    assert embeds.is_floating_point()
    assert embeds.shape[1] == backbone.model.config.hidden_size
    ids = backbone.model.generate(inputs_embeds=embeds[None], max_new_tokens=8, do_sample=False)
    (ours,) = backbone.generate(
        prompt.tensor[None], collate([[5, 6, 7]], [[]], [0], pad=0), Decoding(max_new_tokens=8)
    )
    assert backbone.tokenizer.decode(ids[0], skip_special_tokens=True) == ours


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_what_was_learned_beside_a_start_is_kept_and_does_not_disturb_peft(name, tmp_path):
    backbone = random_backbone(name, torch.float32)
    start, rates = prompts(backbone, runs=1)[0], torch.randn(3, 1, generator=generator(3))
    SoftPrompt.of(backbone, start, {"lr": 0.1}, {"log_rates": rates}).save_pretrained(tmp_path / "start")
    back = SoftPrompt.from_pretrained(tmp_path / "start")
    assert torch.equal(back.tensor, start)
    assert back.further.keys() == {"log_rates"}
    assert torch.equal(back.further["log_rates"], rates)
    back.save(tmp_path / "again.safetensors", {"20": start})
    assert SoftPrompt.load(tmp_path / "again.safetensors").further.keys() == {"log_rates"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = peft.PeftModel.from_pretrained(random_model(name, torch.float32), str(tmp_path / "start"))
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, start)


def test_a_study_on_a_causal_model_writes_prompts_that_peft_places_as_it_does(tmp_path):
    make_world(tmp_path)
    shutil.rmtree(tmp_path / "model")
    random_model("gpt2", torch.float32).save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    changes = {"methods": {"pt": {}, "fomaml": {"inner_lr": 0.1}}, "samples": [13], "learning_rates": [0.5]}
    changes |= {"gym": str(tmp_path / "gym"), "backbone": str(tmp_path / "model")}
    outcome = run_study(parse_study(yaml.safe_dump(STUDY | changes), "unit"), tmp_path / "out", device="cpu")
    assert not outcome.failures
    files = list((tmp_path / "out" / "prompts").iterdir())
    assert len(files) == 2 * 2 + 1  # two methods, two targets, one learned start
    backbone = Backbone.from_pretrained(str(tmp_path / "model"), device="cpu")
    batch = random_batch([(6, 3, 0)])
    ids = torch.cat((batch.input_ids, batch.labels), 1)
    labels = torch.cat((torch.full_like(batch.input_ids, -100), batch.labels), 1)
    for file in files:
        prompt = SoftPrompt.load(file)
        assert prompt.tokenizer_digest == backbone.tokenizer_digest
        prompt.save_pretrained(tmp_path / file.stem)
        assert peft.PeftConfig.from_pretrained(str(tmp_path / file.stem)).task_type == "CAUSAL_LM"
        model = peft.PeftModel.from_pretrained(random_model("gpt2", torch.float32), str(tmp_path / file.stem))
        sums, counts = backbone.nll(prompt.check_for(backbone)[None], batch)
        with torch.no_grad():
            theirs = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        assert abs(sums[0] / counts[0] - theirs) < 1e-6 * theirs
    with sqlite3.connect(tmp_path / "out" / "study.db") as db:
        stored = json.loads(db.execute("SELECT data FROM inputs").fetchone()[0])
    old = Inputs.from_json(json.dumps({key: value for key, value in stored.items() if key != "made_on"}))
    assert (old.made_on, old.parts) == ({}, Inputs.from_json(json.dumps(stored)).parts)


def test_the_papers_files_and_numpy_arrays_are_read(tmp_path):
    tensor = torch.randn(4, 6)
    torch.save({"promptnumber": 4, "promptembedding": tensor}, tmp_path / "start.pt")
    paper = SoftPrompt.from_pretrained(tmp_path / "start.pt")
    assert torch.equal(paper.tensor, tensor)
    assert (paper.placement, paper.info["from"]) == ("suffix", "Qin et al. (2023)")
    np.save(tmp_path / "prompt.npy", tensor.numpy())
    assert torch.equal(SoftPrompt.from_pretrained(tmp_path / "prompt.npy").tensor, tensor)
    torch.save({"prompt_embeddings": tensor}, tmp_path / "adapter_model.bin")
    assert torch.equal(SoftPrompt.from_pretrained(tmp_path).tensor, tensor)


def test_one_of_several_prompts_in_a_file_is_read_by_its_name(tmp_path):
    file, tensors = tmp_path / "prompts.safetensors", {f"maml/{t}/best": torch.randn(4, 6) for t in "ab"}
    save_tensors(file, tensors, {})
    read = SoftPrompt.from_pretrained(f"{file}#maml/b/best")
    assert torch.equal(read.tensor, tensors["maml/b/best"])
    with pytest.raises(SoftstartError, match=r"one of its 2 matrices: .*#maml/a/best"):
        SoftPrompt.from_pretrained(file)
    with pytest.raises(SoftstartError, match=r"'maml/b/bets' of shape .*#maml/b/best"):
        SoftPrompt.from_pretrained(f"{file}#maml/b/bets")


@pytest.mark.skipif(SHARED is None, reason="needs the paper's files")
def test_the_released_starts_are_read():
    files = sorted((SHARED / "paper" / "prompts").glob("*.pt"))
    assert len(files) == 8
    for file in files:
        prompt = SoftPrompt.from_pretrained(file)
        assert prompt.tensor.shape == (100, 1024)
        assert prompt.tensor.isfinite().all()


class Danger:
    def __reduce__(self):
        return (os.mkdir, ("danger",))


def test_files_that_could_run_code_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"promptembedding": torch.ones(2, 3), "x": Danger()}, "bad.pt")
    np.save("bad.npy", np.array([Danger()], dtype=object), allow_pickle=True)
    Path("text.pt").write_text("hello")
    tensors = "not a readable file of tensors"
    expected = {
        "bad.pt": tensors,
        "text.pt": tensors,
        "bad.npy": "not a readable array",
        "no.pt": "no such file",
    }
    for name, message in expected.items():
        with pytest.raises(SoftstartError, match=message):
            SoftPrompt.from_pretrained(name)
    assert not Path("danger").exists()
    Path("lora").mkdir()
    Path("lora/adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(SoftstartError, match="an adapter of the kind LORA, not a soft prompt"):
        SoftPrompt.from_pretrained("lora")
    with pytest.raises(SoftstartError, match="a local prompt has no revision"):
        SoftPrompt.from_pretrained("bad.pt", revision="main")


def test_a_prompt_of_another_tokenizer_or_revision_is_refused_with_both_sides():
    backbone = random_t5(torch.float32)
    prompt = SoftPrompt.of(backbone, prompts(backbone, runs=1)[0])
    assert torch.equal(prompt.check_for(backbone), prompt.tensor)
    other = random_t5(torch.float32)
    other.tokenizer.add_tokens(["new"])
    mine, theirs = backbone.tokenizer_digest[:12], other.tokenizer_digest[:12]
    with pytest.raises(SoftstartError, match=f"trained with tokenizer {mine} .* has tokenizer {theirs}"):
        prompt.check_for(other)
    unknown = SoftPrompt(torch.ones(2, 16), "a/b", revision="1")
    backbone.revision = "2"
    with pytest.raises(SoftstartError, match=r"on 'a/b' at revision 1 .* than 'random-t5' at revision 2"):
        unknown.check_for(backbone)


def test_a_prompt_that_was_trained_in_half_precision_belongs_to_the_same_weights():
    full, half = (load_backbone(TINY, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    of_half, of_full = (SoftPrompt.of(b, b.vocabulary[:3]) for b in (half, full))
    assert torch.equal(of_half.check_for(full), of_half.tensor)
    with pytest.raises(SoftstartError, match="other weights"):  # its weights have lost what float32 had
        of_full.check_for(half)
    with torch.no_grad():
        full.embedding.weight[0, 0] += 1
    del full.digest, full._half_digests  # known from before
    with pytest.raises(SoftstartError, match="other weights"):
        of_half.check_for(full)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": Embeddings(8)}, "p: the prompt has width 3 but backbone 'b' takes width 8"),
        ({"digest": "y"}, "trained on 'a' with other weights than 'b'"),
        ({"placement": "suffix"}, "trained as prefix but is used as suffix"),
    ],
)
def test_a_prompt_of_another_backbone_is_refused(change, message):
    expected = {"kind": Embeddings(3), "digest": "x", "placement": "prefix", "backbone": "b", "where": "p"}
    prompt = SoftPrompt(torch.ones(2, 3), "a", "x")
    prompt.check(**expected)
    with pytest.raises(SoftstartError, match=message):
        prompt.check(**{**expected, **change})


def test_broken_files_are_named(tmp_path):
    with pytest.raises(SoftstartError, match="nothing: no such file"):
        SoftPrompt.load(tmp_path / "nothing")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x04pickle")
    with pytest.raises(SoftstartError, match=r"bad\.safetensors: not a readable safetensors file"):
        SoftPrompt.load(bad)
    from safetensors.torch import save_file

    save_file({"other": torch.ones(2)}, bad)
    with pytest.raises(SoftstartError, match="holds no soft prompt"):
        SoftPrompt.load(bad)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    SoftPrompt(torch.ones(2, 3)).save(path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SoftstartError, match="cannot write \\(No space left on device\\)"):
        SoftPrompt(torch.zeros(2, 3)).save(path)
    assert torch.equal(load_tensors(path)[0]["prompt_embeddings"], torch.ones(2, 3))
    assert [f.name for f in tmp_path.iterdir()] == ["p.safetensors"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(SoftstartError, match="Choose a writable folder"):
        SoftPrompt(torch.ones(2, 3)).save(tmp_path / "p.safetensors")


def test_a_prompt_file_names_no_code_to_import(tmp_path):
    """``antigravity`` opens a browser when it is imported."""
    file = tmp_path / "prompt.safetensors"
    SoftPrompt(torch.zeros(2, 3), "softstart/tiny", placement="antigravity.fly").save(file)
    (tmp_path / "new.csv").write_text("text\nx\n")
    rows = ("--rows", tmp_path / "new.csv", "--input", "{text}", "--out", tmp_path / "out.csv")
    done = call(SOFTSTART, "predict", file, *rows, "--labels", "a", "--device", "cpu")
    assert done.returncode == 1
    assert "under placement 'antigravity.fly', which is not registered" in done.stderr
    (tmp_path / "sources").mkdir()
    for name in "ab":
        (tmp_path / "sources" / f"{name}.csv").write_text("input,output\n" + "a film,good\nb film,bad\n" * 8)
    for init in (file, f"mapped:{file}"):
        done = call(
            SOFTSTART, "meta-train", tmp_path / "sources", "--init", init, "--out", tmp_path / "start",
            "--device", "cpu",
        )  # fmt: skip
        assert done.returncode == 1
        assert "under placement 'antigravity.fly', which is not registered" in done.stderr
