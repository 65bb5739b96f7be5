"""Where prompts of one's own tasks start."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from helpers.models import prompts, random_t5, toy_task
from helpers.own_tables import failed, softstart, write_rows
from softstart import Backbone
from softstart.errors import SoftstartError
from softstart.gym import open_gym
from softstart.gym.mini import mini_settings
from softstart.prompt import SoftPrompt, nearest_source
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import TextFormat, encode_task
from softstart.yourtasks import plain_start
from softstart.yourtasks.starts import named_start, starts_of


def test_starts_by_name_are_the_initializers(tmp_path):
    backbone, table = random_t5(torch.float32), random_t5(torch.float32).vocabulary
    task = toy_task("w5_w6")

    def named(init, length=4):
        return named_start(backbone, init, [task], length=length, seed=2).tensor

    assert torch.equal(named("vocabulary"), plain_start(backbone, 4, seed=2))
    assert torch.equal(named("task_names")[0], table[[5, 6]].mean(0))
    assert torch.equal(named("labels")[:2], table[[3, 4]])
    assert torch.equal(named("text:w7 w8 w9"), table[[7, 8, 9, 7]])
    assert named("gaussian", 200).std() == pytest.approx(1.0, abs=0.1)
    for start in ("task_names", "labels"):
        rest = named(start)[2:]
        assert all(any(torch.equal(row, word) for word in table[3:]) for row in rest)
    stack = prompts(backbone, runs=3)
    for i, tensor in enumerate(stack):
        prompt = SoftPrompt.of(backbone, tensor)
        prompt.save(tmp_path / "prompts" / (f"{i}.safetensors" if i else "adapter"))
    assert torch.allclose(named(f"average:{tmp_path}/prompts"), stack.mean(0))
    near = named_start(backbone, f"nearest:{tmp_path}/prompts", [task], seed=2)
    encoded = encode_task(task, backbone, TextFormat("{input}"))
    begun = starts_of(backbone, near, encoded, [13, 21], 0)
    (tuned,) = adapt(
        backbone, [AdaptRun(plain_start(backbone, 3, seed=2), encoded, 13, 0.3, 0)],
        AdaptConfig(steps=50, eval_every=50, select="last"),
    )  # fmt: skip
    names = sorted(path.name for path in (tmp_path / "prompts").iterdir())
    in_order = [SoftPrompt.load(tmp_path / "prompts" / name).tensor for name in names]
    expected = nearest_source(tuned.prompt, torch.stack(in_order))(3, torch.Generator())
    assert torch.equal(begun.prompts[0], expected)
    assert begun.nearest[0] == f"prompt {1 + [torch.equal(expected, t) for t in in_order].index(True)}"
    with pytest.raises(SoftstartError, match="no prompts in this folder"):
        named("average:nowhere")
    SoftPrompt.of(backbone, stack[0, :2]).save(tmp_path / "prompts" / "short.safetensors")
    with pytest.raises(SoftstartError, match="differ in length"):
        named(f"average:{tmp_path}/prompts")
    free = replace(task, kind="text2text")
    with pytest.raises(SoftstartError, match="no labels to start from"):
        named_start(backbone, "labels", [free])


def test_spot_on_the_command_line_reports_the_nearest_source(sources, tmp_path):
    here, names = sources
    sample = open_gym("mini").load(mini_settings()["mini-random"].target[0]).samples[13]
    write_rows(tmp_path / "mine.csv", sample.train)
    write_rows(tmp_path / "more.csv", sample.dev)
    options = ("--algorithm", "spot", "--set", "embedding_steps=2", "--steps", 3, "--length", 5)
    code, _, err = softstart(
        "meta-train", here / "sources", "--out", "spot", *options, "--init", "task_names", "--device", "cpu",
        cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    library = SoftPrompt.from_pretrained(tmp_path / "spot")
    assert library.further["sources"].shape == (8, 5, library.tensor.shape[1])
    assert torch.allclose(library.further["sources"].mean(0), library.tensor, atol=1e-6)
    table = Backbone.from_pretrained("softstart/tiny", device="cpu")
    words = table.tokenizer([" ".join(sorted(names)[0].split("_"))], add_special_tokens=False).input_ids
    assert torch.allclose(library.further["start"][0], table.vocabulary[words[0]].mean(0), atol=1e-6)
    code, shown, err = softstart(
        "adapt", "--init", "spot", "--train", "mine.csv", "--test", "more.csv", "--steps", 2, "--splits", 2,
        "--lr", 0.3, "--out", "tuned", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    near = re.search(r"nearest source: (\w+), (\w+)", shown)
    assert set(near.groups()) <= set(names)
    assert SoftPrompt.from_pretrained(tmp_path / "tuned").info["nearest"] == list(near.groups())
    assert "the learned start" in shown
    line = failed("meta-train", here / "sources", "--out", "x", "--init", "nearest:spot", cwd=tmp_path)
    assert "source tasks have no target to be near to" in line
    line = failed("evaluate", "tuned", "--rows", "more.csv", "--output", "{answer}", cwd=tmp_path)
    assert "more.csv, line 2: no field 'answer'" in line


def test_demonstrations_begin_every_split_with_its_own_rows():
    backbone = random_t5(torch.float32)
    task, table = toy_task("toy"), backbone.vocabulary
    start = named_start(backbone, "demonstrations", [task], length=6, seed=2)
    encoded = encode_task(task, backbone, TextFormat("{input}"))
    begun = starts_of(backbone, start, encoded, [21, 13], 0)
    for sample, prompt in zip((21, 13), begun.prompts, strict=True):
        first = [(table - row).abs().sum(1).argmin().item() for row in prompt[:3]]
        assert any(row[:3] == first[: len(row)] for row in encoded.train[sample].inputs)
    assert not torch.equal(begun.prompts[0], begun.prompts[1])
