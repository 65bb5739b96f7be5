"""Your own task, as a user has it: tables in, a tuned prompt and predictions out."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import re
from dataclasses import replace

import pytest
import torch

from helpers.families import random_backbone
from helpers.models import prompts, random_t5, relative, toy_task
from helpers.paths import ROOT
from softstart import Backbone
from softstart.algorithms import LOG_RATES
from softstart.backbone import IGNORE, candidates_tensor, collate
from softstart.cli import app as cli
from softstart.errors import SoftstartError
from softstart.gym import open_gym
from softstart.gym.metrics import score
from softstart.gym.mini import mini_settings
from softstart.gym.tables import RawData, source_tasks, whole_task
from softstart.prompt import SoftPrompt, nearest_source
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import TextFormat, encode_task, rng_for, to_batch
from softstart.training.evaluation import Evaluation
from softstart.yourtasks import (
    LEARNED,
    PT,
    Predictor,
    compare_starts,
    fit_inputs,
    learn_start,
    outer_loop,
    plain_start,
    verdict,
)
from softstart.yourtasks.predict import CHUNK
from softstart.yourtasks.starts import named_start, starts_of


def softstart(*arguments, cwd):
    """The command in this process, which has torch loaded: (code, output, errors)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli._main([str(a) for a in arguments], debug=False)
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), err.getvalue()


def failed(*arguments, cwd):
    code, _, err = softstart(*arguments, cwd=cwd)
    assert code == 1
    return err.strip().splitlines()[-1]


def table(path, n, seed=0):
    noise = random.Random(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "body", "label"])
        for i in range(n):
            word = ("good", "bad")[i % 2]
            writer.writerow([i, f"film {noise.randrange(9)}", f"it was {word},\nreally", word])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, and a start and a tuned prompt made from them on the command line."""
    here = tmp_path_factory.mktemp("own")
    table(here / "mine.csv", 48)
    table(here / "more.csv", 20, seed=1)
    tiny = Backbone.from_pretrained("softstart/tiny", device="cpu")
    SoftPrompt.of(tiny, plain_start(tiny, 5, seed=7), {"source": ["a", "b"]}).save_pretrained(here / "start")
    options = ("--input", "{title}: {body}", "--steps", 12, "--lr", 0.3, "--device", "cpu")
    done = softstart(
        "adapt", "--init", "start", "--train", "mine.csv", "--test", "more.csv", *options, "--out", "tuned",
        cwd=here,
    )  # fmt: skip
    assert done[0] == 0, done[2]
    return here, done[1]


def test_adapt_prints_plain_tuning_beside_the_learned_start(folder):
    here, shown = folder
    assert PT in shown
    assert LEARNED in shown
    assert "36 rows to learn from, 12 dev, 20 test" in shown
    assert "means over 3 splits of train and dev" in shown
    assert re.search(
        r"learned start .*: [+-]\d+\.\d points on one test set \(mean; by split( [+-][\d.]+,?){3}\)", shown
    )
    tuned = SoftPrompt.from_pretrained(here / "tuned")
    assert len(tuned.tensor) == 5
    assert tuned.info["labels"] == ["bad", "good"]
    (told,) = tuned.info["scores"]
    assert 0 <= told["low"] <= told["score"] <= told["high"] <= 100
    assert tuned.info["method"] == LEARNED
    row = f"{told['score']:.1f} | {told['low']:.1f} to {told['high']:.1f} over test rows |"
    assert f"| mine | Classification-F1 | {row}" in (here / "tuned" / "README.md").read_text()


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_predictions_keep_the_rows_their_order_and_their_columns(folder, name):
    here, _ = folder
    code, _, err = softstart("predict", "tuned", "--rows", "more.csv", "--out", name, cwd=here)
    assert code == 0, err
    with (here / name).open(newline="") as file:
        rows = list(csv.DictReader(file)) if name.endswith("csv") else [json.loads(line) for line in file]
    assert [int(row["id"]) for row in rows] == list(range(20))
    assert rows[3]["body"] == "it was bad,\nreally"
    for row in rows:
        chances = {word: float(row[f"p({word})"]) for word in ("bad", "good")}
        assert sum(chances.values()) == pytest.approx(1.0, abs=1e-5)
        assert row["prediction"] == max(chances, key=chances.get)


def test_the_same_in_python_and_the_chances_are_those_of_the_model(folder):
    here, _ = folder
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    prompt = SoftPrompt.from_pretrained(here / "tuned")
    texts = [f"the film number {i} was good" for i in range(CHUNK + 3)]
    found = list(Predictor(backbone, prompt)({"input": text, "n": i} for i, text in enumerate(texts)))
    assert [row["n"] for row in found] == list(range(CHUNK + 3))
    words = backbone.tokenizer(["bad", "good"]).input_ids
    ids = backbone.tokenizer(texts[-1:]).input_ids
    scores = backbone.rank(
        prompt.tensor[None], collate(ids, [[]], [0], pad=0), candidates_tensor([words], IGNORE)
    )
    expected = torch.softmax(scores[0], 0)
    assert found[-1]["p(good)"] == pytest.approx(float(expected[1]), abs=1e-5)
    free = list(Predictor(backbone, prompt, labels=[])([{"input": texts[0]}]))
    assert set(free[0]) == {"input", "prediction"}


def test_equal_starts_end_equal_whatever_their_name():
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    start = plain_start(backbone, 4)
    config = AdaptConfig(steps=4, eval_every=2, max_tokens=2048)
    found = compare_starts(backbone, toy_task("toy"), {PT: start, LEARNED: start}, rates=[0.3], config=config)
    assert torch.equal(found[PT].prompt.tensor, found[LEARNED].prompt.tensor)
    assert found[PT].tests == found[LEARNED].tests
    alone = compare_starts(
        backbone, toy_task("toy"), {PT: start}, samples=[21], rates=[0.3], config=config, seed=1
    )
    assert alone[PT].tests == found[PT].tests[1:]


def test_a_causal_model_learns_a_task_of_words():
    backbone = random_backbone("gpt2", torch.float32)
    config = AdaptConfig(steps=60, eval_every=20, max_tokens=None, select="last")
    start, task = prompts(backbone, runs=1, length=6)[0], toy_task("toy")
    how = Evaluation(scoring="rank")
    found = compare_starts(
        backbone, task, {PT: start}, samples=[13], rates=[0.3], config=config, evaluation=how
    )[PT]
    rows = encode_task(task, backbone, TextFormat("{input}")).train[13]
    assert rows.outputs[0] == [[3, 1]]  # the label and the end
    batch = to_batch(rows.pick(range(8), rng_for(0)), [0] * 8, 0)
    before, after = (float(backbone.nll(p[None], batch)[0].sum()) for p in (start, found.prompt.tensor))
    assert after < 0.7 * before
    assert found.prompt.peft_task == "CAUSAL_LM"


def test_all_rows_are_used_and_none_twice(tmp_path):
    table(tmp_path / "mine.csv", 40)
    raw = RawData(str(tmp_path / "mine.csv"), input="{id} {body}")
    task = whole_task(raw)
    (sample,) = task.samples.values()
    parts = [sample.train, sample.dev, task.test]
    assert [len(part) for part in parts] == [24, 8, 8]
    assert len({e.input for part in parts for e in part}) == 40
    assert whole_task(raw).digest == task.digest
    several = whole_task(raw, splits=3)
    assert several.test == task.test
    assert several.samples[42] == sample
    parts = [{*s.train, *s.dev} for s in several.samples.values()]
    assert len(parts) == 3
    assert parts[0] == parts[1] == parts[2]
    assert len({frozenset(s.dev) for s in several.samples.values()}) == 3


def test_what_is_too_long_is_cut_and_counted_or_refused(tmp_path, folder):
    here, _ = folder
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    prompt = SoftPrompt.from_pretrained(here / "tuned")
    rows = [{"input": "good " * n} for n in (3, 30, 40)]
    predictor = Predictor(backbone, prompt, max_input_tokens=10)
    assert len(list(predictor(rows))) == 3
    assert predictor.truncated == 2
    with pytest.raises(SoftstartError, match="more than 10"):
        list(Predictor(backbone, prompt, max_input_tokens=10, strict=True)(rows))
    table(tmp_path / "mine.csv", 40)
    task = whole_task(RawData(str(tmp_path / "mine.csv"), input="{body}"))
    gpt2 = random_backbone("gpt2", torch.float32)
    text, long = fit_inputs(gpt2, 20, task, TextFormat("{input}", 512, 41))
    assert (text.max_input_tokens, long) == (3, 40)
    with pytest.raises(SoftstartError, match="leaves no room for text: 'gpt2' reads at most 64"):
        fit_inputs(gpt2, 64, task, TextFormat("{input}", 512, 41))


def test_the_commands_count_what_they_cut_or_refuse_it(folder, tmp_path):
    here, _ = folder
    given = (
        "predict",
        here / "tuned",
        "--rows",
        here / "more.csv",
        "--out",
        "out.csv",
        "--max-input-tokens",
        3,
    )
    code, _, err = softstart(*given, cwd=tmp_path)
    assert (code, err.strip()) == (0, "warning: 20 inputs are longer than 3 tokens and were cut")
    (tmp_path / "out.csv").unlink()
    assert "more than 3" in failed(*given, "--strict", cwd=tmp_path)
    assert not (tmp_path / "out.csv").exists()
    tuning = ("adapt", "--train", here / "mine.csv", "--input", "{body}", "--max-input-tokens", 2, "--strict")
    assert "48 inputs are longer than 2 tokens" in failed(*tuning, cwd=tmp_path)
    scoring = ("evaluate", here / "tuned", "--rows", here / "more.csv", "--max-input-tokens", 3)
    code, shown, err = softstart(*scoring, cwd=tmp_path)
    assert (code, err.strip()) == (0, "warning: 20 inputs are longer than 3 tokens and were cut")
    assert re.match(r"Classification-F1 [\d.]+ on 20 rows", shown)


def test_bad_input_is_told_in_one_line(folder, tmp_path):
    here, _ = folder
    assert "no column 'input'" in failed("adapt", "--train", here / "mine.csv", cwd=tmp_path)
    assert "cannot read this file" in failed("adapt", "--train", "none.csv", cwd=tmp_path)
    assert "cannot write 'out.txt'" in failed(
        "predict", here / "tuned", "--rows", here / "more.csv", "--out", "out.txt", cwd=tmp_path
    )
    (tmp_path / "rows.csv").write_text("text\nhello\n")
    line = failed("predict", here / "tuned", "--rows", "rows.csv", "--out", "out.csv", cwd=tmp_path)
    assert "row 2: no field 'title'" in line
    assert not (tmp_path / "out.csv").exists()
    other = random_t5(torch.float32)
    SoftPrompt.of(other, prompts(other, runs=1)[0]).save(tmp_path / "other.safetensors")
    line = failed(
        "adapt", "--init", "other.safetensors", "--backbone", "softstart/tiny", "--train", here / "mine.csv",
        "--input", "{body}", cwd=tmp_path,
    )  # fmt: skip
    assert "the prompt has width 16 but backbone 'softstart/tiny' embeds" in line
    assert softstart("predict", "x", "--rowz", "y", cwd=tmp_path)[0] == 2
    line = failed("adapt", "--init", "label", "--train", here / "mine.csv", cwd=tmp_path)
    assert line == "error: --init: no start 'label'. Did you mean labels?"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Eight source tasks of the mini gym as tables, and tables of a target task they were not made of."""
    here, gym = tmp_path_factory.mktemp("meta"), open_gym("mini")
    names = mini_settings()["mini-random"].source[:8]
    (here / "sources").mkdir()
    for name in names:
        sample = gym.load(name).samples[13]
        write_rows(here / "sources" / f"{name}.csv", (*sample.train, *sample.dev))
    (here / "sources" / "notes.txt").write_text("no table")
    return here, names


def write_rows(path, examples):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["input", "output"])
        writer.writerows((e.input, e.outputs[0]) for e in examples if e.outputs)


def test_source_tasks_keep_no_row_for_a_test(sources):
    here, names = sources
    tasks = source_tasks(here / "sources")
    assert [task.name for task in tasks] == sorted(names)
    for task in tasks:
        (sample,) = task.samples.values()
        with (here / "sources" / f"{task.name}.csv").open(newline="") as file:
            rows = {(row["input"].strip(), row["output"].strip()) for row in csv.DictReader(file)}
        assert {(e.input, e.outputs[0]) for e in (*sample.train, *sample.dev)} == rows
        assert not task.test
    with pytest.raises(SoftstartError, match="no tables to learn from"):
        source_tasks(here)


def test_a_start_learned_from_a_folder_of_tables_beats_plain_tuning_in_few_steps(sources):
    """The command, the code of docs/ecosystem.md, and whether it is worth it on tasks it never saw."""
    here, names = sources
    options = ("--steps", 40, "--seed", 0, "--device", "cpu")
    code, shown, err = softstart("meta-train", "sources", "--out", "start", *options, cwd=here)
    assert code == 0, err
    assert "start of 8 source tasks: start" in shown
    assert sorted(path.name for path in (here / "start").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    learned = SoftPrompt.from_pretrained(here / "start")
    assert learned.info["source"] == sorted(names)
    assert learned.info["algorithm"] == "multitask"
    backbone, gym, gains = Backbone.from_pretrained("softstart/tiny", device="cpu"), open_gym("mini"), []
    config = AdaptConfig(steps=20, eval_every=10, max_tokens=2048)
    for name in mini_settings()["mini-random"].target:
        task = gym.load(name)
        starts = {PT: plain_start(backbone, 20), LEARNED: learned.check_for(backbone)}
        found = compare_starts(backbone, task, starts, samples=[13], rates=[0.3], config=config)
        gains.append(found[LEARNED].test - found[PT].test)
    print([round(100 * gain, 1) for gain in gains])
    assert sum(gains) / len(gains) > 0.1
    assert sum(gain > 0 for gain in gains) > len(gains) / 2


def documented(mark):
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    return page.split(mark)[1].split("```python\n")[1].split("```")[0]


def test_the_documented_meta_training_is_what_the_command_does(sources, monkeypatch):
    here, _ = sources
    code = documented("<!-- meta-train -->")
    assert len(code.strip().splitlines()) <= 5 + 3  # the imports apart
    monkeypatch.chdir(here)
    exec(code.replace('"fomaml",', '"fomaml", steps=3,').replace('"start"', '"python"'), {})
    options = ("--steps", 3, "--algorithm", "fomaml", "--set", "inner_lr=3.0", "--set", "inner_steps=2")
    assert softstart("meta-train", "sources", "--out", "command", *options, "--lr", 0.3, cwd=here)[0] == 0
    first, second = (SoftPrompt.from_pretrained(here / name) for name in ("python", "command"))
    assert torch.equal(first.tensor, second.tensor)


def test_meta_training_goes_on_where_it_was_killed(sources, tmp_path):
    here, _ = sources
    backbone, tasks = (
        Backbone.from_pretrained("softstart/tiny", device="cpu"),
        source_tasks(here / "sources")[:2],
    )
    algorithm, config = outer_loop("multitask", steps=4, lr=0.3, seed=1, overrides=["checkpoint_every=1"])
    told = []

    def kill(n, note=""):
        told.append((n, note))
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_start(backbone, tasks, algorithm, config, length=4, folder=tmp_path, progress=kill)
    assert len(list(tmp_path.iterdir())) == 1
    learn_start(backbone, tasks, algorithm, replace(config, seed=2), length=4, folder=tmp_path)  # another one
    resumed = learn_start(
        backbone, tasks, algorithm, config, length=4, folder=tmp_path,
        progress=lambda n, note="": told.append((n, note)),
    )  # fmt: skip
    assert told[3] == (2, "resumed")
    whole = learn_start(backbone, tasks, algorithm, config, length=4)
    assert torch.equal(resumed.tensor, whole.tensor)
    assert not list(tmp_path.iterdir())
    for name, overrides, message in (
        ("pt", [], "learns no start"), ("mamml", [], "unknown method"), ("maml", ["a=1"], "no field of maml"),
        ("maml", ["a"], "not of the form"), ("maml", ["lr=0"], "lr must be greater than 0"),
    ):  # fmt: skip
        with pytest.raises(SoftstartError, match=message):
            outer_loop(name, steps=1, lr=0.1, seed=0, overrides=overrides)


def test_the_documented_python_is_what_the_commands_do(tmp_path, monkeypatch, capsys):
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    sample = open_gym("mini").load(mini_settings()["mini-random"].target[0]).samples[13]
    write_rows(tmp_path / "mine.csv", sample.train)
    write_rows(tmp_path / "more.csv", sample.dev)
    write_rows(tmp_path / "new.csv", sample.dev[:5])
    start = SoftPrompt.of(backbone, plain_start(backbone, 20, seed=3))
    start.save_pretrained(tmp_path / "start")
    monkeypatch.chdir(tmp_path)
    code = documented("<!-- adapt -->")
    assert len([line for line in code.splitlines() if line and "import" not in line]) == 5
    quick = "config=AdaptConfig(steps=4, eval_every=1, max_tokens=2048)"
    scope = {"backbone": backbone, "start": start, "AdaptConfig": AdaptConfig}
    exec(code.replace("LEARNED: start}", f"LEARNED: start}}, {quick}"), scope)
    _, learned, scored = capsys.readouterr().out.split(maxsplit=2)
    assert len(scope["predictions"]) == 5
    done = softstart(
        "adapt", "--init", "start", "--train", "mine.csv", "--test", "more.csv", "--steps", 4, "--out",
        "tuned", "--device", "cpu", cwd=tmp_path,
    )  # fmt: skip
    assert done[0] == 0, done[2]
    (shown,) = [line for line in done[1].splitlines() if line.startswith(LEARNED) and "…" in line]
    assert f"{100 * float(learned):.1f}" in shown
    found = softstart("evaluate", "tuned", "--rows", "more.csv", cwd=tmp_path)[1].strip()
    value = re.search(r"score=([\d.]+)", scored)[1]
    assert found == f"Classification-F1 {100 * float(value):.1f} on {len(sample.dev)} rows"
    predictions = [row["prediction"] for row in scope["predict"]([{"input": e.input} for e in sample.dev])]
    assert float(value) == score("Classification-F1", predictions, [e.outputs for e in sample.dev])


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


def test_learned_rates_and_source_prompts_go_with_the_start(tmp_path):
    backbone, task = random_t5(torch.float32), toy_task("toy")
    start, log_rates = prompts(backbone)[0], torch.tensor([[1.0], [0.0], [-1.0]])
    config = AdaptConfig(steps=3, eval_every=3, select="last")
    learned = SoftPrompt.of(backbone, start, {}, {LOG_RATES: log_rates})
    found = compare_starts(
        backbone, task, {"a": learned, "b": start}, samples=[13], rates=[0.3], config=config
    )
    encoded = encode_task(task, backbone, TextFormat("{input}"))
    run = AdaptRun(start, encoded, 13, 0.3, 0)
    for name, rates in (("a", log_rates.exp()), ("b", None)):
        (alone,) = adapt(backbone, [replace(run, rates=rates)], config, Evaluation(max_tokens=4096))
        assert torch.allclose(found[name].prompt.tensor, alone.prompt, atol=1e-6)
    assert not torch.allclose(found["a"].prompt.tensor, found["b"].prompt.tensor, atol=1e-3)


def test_spot_on_the_command_line_tells_the_nearest_source(sources, tmp_path):
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
    assert "row 2: no field 'answer'" in line


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.1, 0.2], "helped: +15.0 points on one test set (mean; by split +10.0, +20.0)"),
        ([0.1, -0.2], "helped on some splits and not on others: -5.0 points"),
        ([-0.1], "did not help: -10.0 points on one test set"),
        ([0.0], "made no difference: +0.0 points"),
    ],
)
def test_the_verdict_says_what_the_splits_say(gains, said):
    assert verdict(gains).startswith(said)


def test_export_converts_any_format(folder, tmp_path):
    here, _ = folder
    assert softstart("export", here / "tuned", "p.safetensors", cwd=tmp_path)[0] == 0
    assert softstart("export", "p.safetensors", "peft", cwd=tmp_path)[0] == 0
    first, last = SoftPrompt.from_pretrained(here / "tuned"), SoftPrompt.from_pretrained(tmp_path / "peft")
    assert relative(first.tensor, last.tensor) == 0
    assert first.info == last.info
