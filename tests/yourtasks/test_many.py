"""Many prompts on one model: each row gets what it gets from its prompt alone."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from helpers.families import exact_norms, random_backbone
from helpers.models import random_t5
from helpers.own_tables import failed, softstart
from softstart.errors import SoftstartError
from softstart.gym.task import Example
from softstart.prompt import SoftPrompt
from softstart.yourtasks import ManyPrompts, Predictor, evaluate_many, evaluate_rows, prompts_in

LABELS = {"sort": ("w3", "w4 w5"), "rate": ("w3", "w4 w5", "w4 w6"), "ask": ()}


def predictors(backbone, lengths=(4, 4, 4)):
    found = {}
    for i, (name, labels) in enumerate(LABELS.items()):
        generator = torch.Generator().manual_seed(i)
        vectors = torch.randn(lengths[i], backbone.width, generator=generator, dtype=backbone.prompt_dtype)
        info = {"labels": list(labels), "max_new_tokens": 3}
        found[name] = Predictor(backbone, SoftPrompt.of(backbone, vectors, info))
    return found


def rows(count=9):
    names = list(LABELS)
    return [{"task": names[i % 3], "input": f"w{10 + i} w{20 + i % 5}", "n": i} for i in range(count)]


@pytest.mark.parametrize("lengths", [(4, 4, 4), (4, 2, 3)])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_together_is_one_at_a_time(family, lengths, exact_norm):
    backbone = random_t5() if family == "t5" else random_backbone(family)
    if family != "t5":
        exact_norms(backbone.model)
    found = predictors(backbone, lengths)
    many = ManyPrompts(found, "task")
    together = list(many(rows()))
    assert [row["n"] for row in together] == list(range(9))
    for row in rows():
        (alone,) = found[row["task"]]([row])
        got = together[row["n"]]
        assert list(got) == list(alone)
        assert got["prediction"] == alone["prediction"]
        chances = [name for name in got if name.startswith("p(")]
        assert [got[name] for name in chances] == pytest.approx([alone[name] for name in chances], abs=2e-6)
    assert many.columns == ("prediction", "p(w3)", "p(w4 w5)", "p(w4 w6)")


def test_one_pass_serves_all_prompts_of_a_length(monkeypatch):
    backbone = random_t5(torch.float32)
    passes = []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda *given: passes.append(len(given[0])) or encode(*given))
    found = {name: of for name, of in predictors(backbone).items() if of.labels}
    list(ManyPrompts(found, "task")([row for row in rows() if row["task"] in found]))
    assert passes == [6]


def test_scores_are_those_of_one_prompt_at_a_time():
    found = predictors(random_t5(torch.float32))
    examples = {
        name: [Example(f"w{i} w{i + 9}", (of.labels or ("w7",))[:1]) for i in range(10, 15 + len(name))]
        for name, of in found.items()
    }
    together = evaluate_many(found, examples, "ACC")
    assert together == {name: evaluate_rows(of, examples[name], "ACC") for name, of in found.items()}


def test_what_does_not_fit_is_said():
    found = predictors(random_t5(torch.float32))
    with pytest.raises(SoftstartError, match="no prompt 'srot', which column 'task' names") as error:
        list(ManyPrompts(found, "task")([*rows(2), {"task": "srot", "input": "w9"}]))
    assert (error.value.where, error.value.fix) == ("row 3", "Did you mean sort?")
    with pytest.raises(SoftstartError, match="one backbone"):
        ManyPrompts({"a": found["ask"], "b": predictors(random_t5(torch.float32))["ask"]}, "task")
    with pytest.raises(SoftstartError, match="no rows for the prompt 'ask'"):
        evaluate_many(found, {name: [] if name == "ask" else [Example("w3", ("w3",))] for name in found})


def test_the_commands_take_a_folder_of_prompts(folder, tmp_path):
    here, _ = folder
    (tmp_path / "prompts").mkdir()
    tuned = SoftPrompt.from_pretrained(here / "tuned")
    tuned.save_pretrained(tmp_path / "prompts" / "films")
    tuned.tensor.neg_()
    tuned.save(tmp_path / "prompts" / "other.safetensors")
    assert list(prompts_in(tmp_path / "prompts")) == ["films", "other"]
    with (here / "more.csv").open(newline="") as file:
        mine = list(csv.DictReader(file))
    with (tmp_path / "all.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["which", *mine[0]])
        writer.writeheader()
        writer.writerows({"which": ("films", "other")[i % 3 == 0], **row} for i, row in enumerate(mine))
    given = ("--by", "which", "--rows", "all.csv")
    code, _, err = softstart("predict", "prompts", *given, "--out", "said.jsonl", cwd=tmp_path)
    assert code == 0, err
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [row["id"] for row in said] == [row["id"] for row in mine]
    scores = {}
    for name, path in prompts_in(tmp_path / "prompts").items():
        code, _, err = softstart("predict", path, "--rows", "all.csv", "--out", "one.jsonl", cwd=tmp_path)
        assert code == 0, err
        alone = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
        for row, single in zip(said, alone, strict=True):
            if row["which"] == name:
                assert row["p(good)"] == pytest.approx(single["p(good)"], abs=1e-4)
        code, shown, err = softstart("evaluate", path, "--rows", "all.csv", cwd=tmp_path)
        assert code == 0, err
        scores[name] = shown.split()[1]
    code, shown, err = softstart("evaluate", "prompts", "--rows", "all.csv", cwd=tmp_path)
    assert code == 0, err
    for name, score in scores.items():
        assert f"{name} Classification-F1 {score} 20" in " ".join(shown.split())
    code, shown, err = softstart("evaluate", "prompts", *given, cwd=tmp_path)
    assert code == 0, err
    assert "13 likeliest label" in " ".join(shown.split())
    assert "7 likeliest label" in " ".join(shown.split())
    wrong = ("predict", "prompts", "--rows", "all.csv", "--out", "x.csv")
    assert "no column 'whihc'. Did you mean which?" in failed(*wrong, "--by", "whihc", cwd=tmp_path)
    assert "no prompt '0', which column 'id' names" in failed(*wrong, "--by", "id", cwd=tmp_path)
