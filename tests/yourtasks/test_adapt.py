"""A prompt tuned on one's own task: the command, the same in Python, and what is said of the start."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from helpers.families import random_backbone
from helpers.models import prompts, random_t5, toy_task
from helpers.own_tables import documented, failed, softstart, table, write_rows
from softstart import Backbone
from softstart.algorithms import LOG_RATES
from softstart.backbone import TINY
from softstart.cli.tuned import odd_results, saved_line, show_tuned
from softstart.gym import open_gym
from softstart.gym.blind import Blind
from softstart.gym.metrics import score
from softstart.gym.mini import mini_settings
from softstart.gym.rows import read_rows
from softstart.gym.tables import RawData, whole_task
from softstart.prompt import SoftPrompt
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.baselines.base import Given
from softstart.training.baselines.in_context import InContext
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import TextFormat, encode_task, rng_for, to_batch
from softstart.training.evaluation import Evaluation
from softstart.yourtasks import (
    LEARNED,
    PT,
    Levels,
    Tuned,
    best_start,
    compare_starts,
    levels,
    plain_start,
    verdict,
)
from softstart.yourtasks.rates import splits_for, steps_for


def test_adapt_compares_the_learned_start_with_plain_tuning(folder):
    here, shown = folder
    assert PT in shown
    assert LEARNED in shown
    assert "36 rows to learn from, 12 dev, 20 test" in shown
    assert "means over 3 splits of train and dev" in shown
    said = r"learned start .*: [+-]\d+\.\d points, 95 % interval \S+ to \S+ over test rows "
    assert re.search(said + r"\(mean; by split( [+-][\d.]+,?){3}\)", shown)
    tuned = SoftPrompt.from_pretrained(here / "tuned")
    assert len(tuned.tensor) == 5
    assert tuned.info["labels"] == ["bad", "good"]
    (row_of_card,) = tuned.info["scores"]
    assert 0 <= row_of_card["low"] <= row_of_card["score"] <= row_of_card["high"] <= 100
    assert tuned.info["method"] == LEARNED
    row = (
        f"{row_of_card['score']:.1f} | {row_of_card['low']:.1f} to {row_of_card['high']:.1f} over test rows |"
    )
    assert f"| mine | Classification-F1 | {row}" in (here / "tuned" / "README.md").read_text()


def test_a_dev_file_takes_the_place_of_rows_drawn_from_train(folder, tmp_path):
    here, _ = folder
    table(tmp_path / "dev.csv", 14, seed=2)
    options = ("--input", "{title}: {body}", "--steps", 2, "--lr", 0.3, "--length", 4, "--device", "cpu")
    given = ("adapt", "--train", here / "mine.csv", "--dev", "dev.csv", *options)
    done = softstart(*given, cwd=tmp_path)
    assert done[0] == 0, done[2]
    assert "38 rows to learn from, 14 dev, 10 test (a fifth of --train)" in done[1]
    assert "--dev and --splits cannot go together" in failed(*given, "--splits", 2, cwd=tmp_path)
    (tmp_path / "dev.csv").write_text("title,body,label\n")
    assert "dev.csv" in failed(*given, cwd=tmp_path)
    whole = whole_task(RawData(str(here / "mine.csv"), input="{title}: {body}", dev=str(here / "more.csv")))
    (sample,) = whole.samples.values()
    assert [row.outputs for row in sample.dev] == [
        (row["label"],) for row in read_rows(here / "more.csv", None, header=True)
    ]


def test_equal_starts_end_equal_whatever_their_name():
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    start = plain_start(backbone, 4)
    config = AdaptConfig(steps=4, eval_every=2, max_tokens=2048)
    tuned_by_start = compare_starts(
        backbone, toy_task("toy"), {PT: start, LEARNED: start}, rates=[0.3], config=config
    )
    assert torch.equal(tuned_by_start[PT].prompt.tensor, tuned_by_start[LEARNED].prompt.tensor)
    assert tuned_by_start[PT].tests == tuned_by_start[LEARNED].tests
    alone = compare_starts(
        backbone, toy_task("toy"), {PT: start}, samples=[21], rates=[0.3], config=config, seed=1
    )
    assert alone[PT].tests == tuned_by_start[PT].tests[1:]


def test_a_causal_model_learns_a_task_of_words():
    backbone = random_backbone("gpt2", torch.float32)
    config = AdaptConfig(steps=60, eval_every=20, max_tokens=None, select="last")
    start, task = prompts(backbone, runs=1, length=6)[0], toy_task("toy")
    evaluation = Evaluation(scoring="rank")
    tuned_by_start = compare_starts(
        backbone, task, {PT: start}, samples=[13], rates=[0.3], config=config, evaluation=evaluation
    )[PT]
    rows = encode_task(task, backbone, TextFormat("{input}")).train[13]
    assert rows.outputs[0] == [[3, 1]]  # the label and the end
    batch = to_batch(rows.pick(range(8), rng_for(0)), [0] * 8, 0)
    before, after = (
        float(backbone.nll(p[None], batch)[0].sum()) for p in (start, tuned_by_start.prompt.tensor)
    )
    assert after < 0.7 * before
    assert tuned_by_start.prompt.peft_task == "CAUSAL_LM"


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
    printed = softstart("evaluate", "tuned", "--rows", "more.csv", cwd=tmp_path)[1].strip()
    value = re.search(r"score=([\d.]+)", scored)[1]
    assert (
        printed == f"Classification-F1 {100 * float(value):.1f} on {len(sample.dev)} rows (likeliest label)"
    )
    predictions = [row["prediction"] for row in scope["predict"]([{"input": e.input} for e in sample.dev])]
    assert float(value) == score("Classification-F1", predictions, [e.outputs for e in sample.dev])


def test_learned_rates_and_source_prompts_go_with_the_start(tmp_path):
    backbone, task = random_t5(torch.float32), toy_task("toy")
    start, log_rates = prompts(backbone)[0], torch.tensor([[1.0], [0.0], [-1.0]])
    config = AdaptConfig(steps=3, eval_every=3, select="last")
    learned = SoftPrompt.of(backbone, start, {}, {LOG_RATES: log_rates})
    tuned_by_start = compare_starts(
        backbone, task, {"a": learned, "b": start}, samples=[13], rates=[0.3], config=config
    )
    encoded = encode_task(task, backbone, TextFormat("{input}"))
    run = AdaptRun(start, encoded, 13, 0.3, 0)
    for name, rates in (("a", log_rates.exp()), ("b", None)):
        (alone,) = adapt(backbone, [replace(run, rates=rates)], config, Evaluation(max_tokens=4096))
        assert torch.allclose(tuned_by_start[name].prompt.tensor, alone.prompt, atol=1e-6)
    assert not torch.allclose(tuned_by_start["a"].prompt.tensor, tuned_by_start["b"].prompt.tensor, atol=1e-3)


@pytest.mark.parametrize(
    ("gains", "ends", "said"),
    [
        (
            [0.1, 0.2],
            (0.02, 0.28),
            "helped: +15.0 points, 95 % interval +2.0 to +28.0 over test rows (mean; by",
        ),
        ([0.1, 0.2], (-0.02, 0.28), "made no difference that one test set shows: +15.0 points"),
        ([0.1, -0.2], (-0.3, -0.1), "helped on some splits and not on others: -5.0 points"),
        ([-0.1], (-0.2, -0.01), "did harm: -10.0 points"),
        ([0.0], (0.0, 0.0), "made no difference that one test set shows: +0.0 points"),
        ([0.1], None, "made no difference that one test set shows: +10.0 points"),
    ],
)
def test_the_verdict_takes_an_interval_and_every_split(gains, ends, said):
    assert verdict(gains, ends).startswith(said)


def test_bad_input_is_one_line(folder, tmp_path):
    here, _ = folder
    assert "no column 'input'" in failed("adapt", "--train", here / "mine.csv", cwd=tmp_path)
    assert "cannot read this file" in failed("adapt", "--train", "none.csv", cwd=tmp_path)
    assert "cannot write 'out.txt'" in failed(
        "predict", here / "tuned", "--rows", here / "more.csv", "--out", "out.txt", cwd=tmp_path
    )
    (tmp_path / "rows.csv").write_text("text\nhello\n")
    line = failed("predict", here / "tuned", "--rows", "rows.csv", "--out", "out.csv", cwd=tmp_path)
    assert "line 2: no field 'title'" in line
    assert not (tmp_path / "out.csv").exists()
    other = random_t5(torch.float32)
    SoftPrompt.of(other, prompts(other, runs=1)[0]).save(tmp_path / "other.safetensors")
    line = failed(
        "adapt", "--init", "other.safetensors", "--backbone", "softstart/tiny", "--train", here / "mine.csv",
        "--input", "{body}", cwd=tmp_path,
    )  # fmt: skip
    assert "the prompt has width 16 but backbone 'softstart/tiny' takes width 128" in line
    assert softstart("predict", "x", "--rowz", "y", cwd=tmp_path)[0] == 2
    line = failed("adapt", "--init", "label", "--train", here / "mine.csv", cwd=tmp_path)
    assert line == "error: --init: no start 'label'. Did you mean labels?"


def test_runs_that_diverged_are_named(capsys):
    backbone = random_t5(torch.float32)
    task, start = toy_task("toy"), plain_start(backbone, 4)
    few = AdaptConfig(steps=3, eval_every=1)
    for rates, diverged in (((0.1, math.inf), True), ((0.1,), False)):
        tuned = compare_starts(backbone, task, {PT: start}, rates=rates, config=few)
        show_tuned(task, tuned, Levels(0.0, Blind(0.0, None)), own_test=True)
        expected = "split 1 at lr inf after step 1", "split 2 at lr inf after step 1"
        assert tuned[PT].diverged == (expected if diverged else ())
        said = f"warning: {PT}: 2 runs diverged ({', '.join(expected)}); they count up to there"
        assert (said in capsys.readouterr().err) == diverged


def result(tests, low, losses=((2.0, 1.0),), outside=0.0):
    prompt = SoftPrompt(torch.zeros(2, 3), info={"scoring": "rank"})
    return Tuned(prompt, 0.3, 5, (0.5,), tests, sample=42, low=low, high=1.0, outside=outside, losses=losses)


def test_what_a_reader_must_know_of_a_result_is_said():
    known, task = Levels(0.1, Blind(0.3, 0.5)), toy_task("toy")
    said = list(odd_results(task, {"good": result((0.9,), 0.7)}, known))
    assert said == []
    said = list(odd_results(task, {"weak": result((0.6,), 0.4)}, known))
    assert len(said) == 1
    assert said[0].startswith("weak: cannot be told from 50.0")
    said = list(odd_results(task, {"weak": result((0.6, 0.3), 0.4)}, known))
    assert said[0].startswith("weak: at chance: not above 50.0")
    weak = result((0.6,), 0.4)
    embedded = replace(weak, prompt=replace(weak.prompt, backbone=TINY))
    assert "--backbone smollm2" in list(odd_results(task, {"weak": embedded}, known))[1]
    said = list(odd_results(task, {"first": replace(result((0.9,), 0.7), best_step=0)}, known))
    assert said == ["first: its prompt is the start itself, untrained: no later dev score was better"]
    said = list(odd_results(task, {"none": result((0.0, 0.0), 0.0, outside=0.98)}, known))
    assert said == ["none: no test row is right: 98 % of its outputs are no label"]
    said = list(odd_results(task, {"flat": result((0.9,), 0.7, losses=((2.0, 1.97),))}, known))
    assert said == ["flat: the training loss did not move (2 to 1.97); try other rates with --lr"]


def test_the_best_start_on_dev_is_kept_and_of_equals_the_learned_one():
    good, weak = result((0.1,), 0.0), result((0.9,), 0.0)
    tuned = {PT: replace(good, devs=(0.9, 0.7)), LEARNED: replace(weak, devs=(0.8, 0.7), sample=43)}
    assert best_start(tuned) == PT
    assert (
        saved_line(PT, tuned, [42, 43])
        == f"{PT}, split 1 of 2 (the best mean dev score of 2 starts, dev 90.0)"
    )
    tuned[LEARNED] = replace(weak, devs=(0.7, 0.9), sample=43)
    assert best_start(tuned) == LEARNED
    assert saved_line(LEARNED, tuned, [42, 43]).startswith(f"{LEARNED}, split 2 of 2")


def test_the_level_of_in_context_learning_is_that_of_the_baseline_with_one_draw():
    backbone, task = random_t5(torch.float32), toy_task("toy")
    evaluation, encoded = Evaluation(scoring="rank"), encode_task(task, backbone, TextFormat("{input}"))
    scores = []
    for i, sample in enumerate((13, 21)):
        given = Given(backbone, encoded, sample, 0.0, i, evaluation)
        InContext(demonstrations=3, draws=1).run(given, lambda _, score: scores.append(score().score))
    known = levels(backbone, task, TextFormat("{input}"), evaluation, 3)
    assert known.in_context == pytest.approx(sum(scores) / 2)
    assert levels(backbone, task, TextFormat("{input}"), evaluation).in_context is None


def test_levels_are_those_of_the_metric():
    backbone, task = random_t5(torch.float32), toy_task("toy")
    found = levels(backbone, task, TextFormat("{input}"), Evaluation(scoring="rank"))
    gold = [row.outputs[0] for row in task.test]
    assert found.blind.majority == gold.count("w3") / len(gold)
    assert found.blind.chance == pytest.approx(0.5, abs=0.05)
    assert 0 <= found.zero_shot <= 1
    free = levels(backbone, replace(task, kind="text2text"), TextFormat("{input}"), Evaluation())
    assert free.blind.chance is None
    assert free.blind.best == free.blind.majority


def test_writing_is_a_choice_that_is_named(folder, tmp_path):
    here, _ = folder
    options = ("--input", "{title}: {body}", "--steps", 2, "--lr", 0.3, "--length", 3, "--splits", 1)
    given = ("adapt", "--train", here / "mine.csv", *options, "--scoring", "generate", "--out", "written")
    code, shown, err = softstart(*given, "--device", "cpu", cwd=tmp_path)
    assert code == 0, err
    assert "mine: Classification-F1, generated" in shown
    assert "no label %" in shown
    assert SoftPrompt.from_pretrained(tmp_path / "written").info["scoring"] == "generate"
    assert '| `scoring` | "generate" |' in (tmp_path / "written" / "README.md").read_text()
    line = softstart("evaluate", "written", "--rows", here / "more.csv", cwd=tmp_path)[1]
    assert re.search(r"on 20 rows \(generated, \d+ % no label\)", line)
    line = softstart("evaluate", "written", "--rows", here / "more.csv", "--scoring", "rank", cwd=tmp_path)[1]
    assert "(likeliest label)" in line


def test_a_suffix_start_is_tuned_and_written_for_softstart_alone(folder, tmp_path):
    here, _ = folder
    backbone = Backbone.from_pretrained("softstart/tiny", device="cpu")
    start = plain_start(backbone, 3)
    torch.save({"promptnumber": 3, "promptembedding": start}, tmp_path / "published.pt")
    SoftPrompt(start).save(tmp_path / "bare.safetensors")
    options = ("--train", here / "mine.csv", "--input", "{body}", "--steps", 2, "--lr", 0.3, "--splits", 1)
    on = ("--backbone", "softstart/tiny", "--device", "cpu")
    for init, place in (("published.pt", ()), ("bare.safetensors", ("--placement", "suffix"))):
        assert softstart("inspect", init, *place, *on[:2], cwd=tmp_path)[0] == 0
        code, _, err = softstart(
            "adapt", "--init", init, *place, *options, *on, "--out", "out", "--force", cwd=tmp_path
        )
        assert code == 0, err
        assert "warning: PEFT puts prompts before the text: this suffix prompt is for Softstart alone" in err
        assert SoftPrompt.from_pretrained(tmp_path / "out").placement == "suffix"
        card = (tmp_path / "out" / "README.md").read_text()
        assert "library_name: softstart" in card
        assert "for Softstart alone" in card
        assert "PeftModel" not in card
        assert softstart("evaluate", "out", "--rows", here / "more.csv", cwd=tmp_path)[0] == 0
    assert softstart("adapt", *options, "--out", "file.safetensors", cwd=tmp_path)[0] == 0
    assert SoftPrompt.load(tmp_path / "file.safetensors").placement == "prefix"
    line = failed("inspect", "published.pt", "--placement", "prefix", *on[:2], cwd=tmp_path)
    assert "the prompt was trained as suffix, not as prefix" in line


class Interrupted(Exception):
    """Stands for whatever ends a process between two steps."""


def test_an_interrupted_adaptation_resumes_and_ends_as_if_nothing_had_happened(tmp_path):
    backbone, task = Backbone.from_pretrained("softstart/tiny", device="cpu"), toy_task("toy")
    starts = {PT: plain_start(backbone, 4), LEARNED: plain_start(backbone, 4, seed=2)}
    how = {"rates": [0.3, 0.1], "config": AdaptConfig(steps=6, eval_every=2, max_tokens=2048)}
    steps = []

    def until_the_second_evaluation(units, note=""):
        steps.append(units)
        if len(steps) == 6:
            raise Interrupted

    file = tmp_path / "unfinished.safetensors"
    with pytest.raises(Interrupted):
        compare_starts(backbone, task, starts, **how, checkpoint=file, progress=until_the_second_evaluation)
    assert file.exists()
    resumed, done = [], []
    again = compare_starts(
        backbone, task, starts, **how, checkpoint=file, progress=lambda *a: resumed.append(a)
    )
    whole = compare_starts(backbone, task, starts, **how, progress=lambda *a: done.append(a))
    assert resumed[0] == (4 * 8.0, "resumed")
    assert len(resumed) == len(done) - 4
    for name in starts:
        assert torch.equal(again[name].prompt.tensor, whole[name].prompt.tensor)
        assert again[name].tests == whole[name].tests


def test_a_finished_prompt_is_neither_made_again_nor_replaced_unasked(folder, tmp_path):
    here, _ = folder
    asked = ("adapt", "--train", here / "mine.csv", "--input", "{title}: {body}", "--length", 4, "--lr", 0.3,
             "--splits", 1, "--device", "cpu", "--out", "tuned", "--steps")  # fmt: skip
    assert softstart(*asked, 2, cwd=tmp_path)[0] == 0
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "tuned").iterdir()}
    assert not [file for file in kept if "unfinished" in file.name]
    code, shown, _ = softstart(*asked, 2, cwd=tmp_path)
    assert code == 0
    assert shown.strip() == "nothing to do: tuned is finished, from the same rows and settings"
    line = failed(*asked, 3, cwd=tmp_path)
    assert "tuned: holds a finished prompt of other rows, settings or backbone" in line
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "tuned").iterdir()} == kept
    assert softstart(*asked, 3, "--force", cwd=tmp_path)[0] == 0
    assert SoftPrompt.load(tmp_path / "tuned").info["steps"] <= 3


def test_another_backbone_than_the_embedded_one_takes_fewer_steps_and_one_split():
    assert (steps_for("softstart/tiny"), splits_for("softstart/tiny")) == (300, 3)
    assert (steps_for("smollm2"), splits_for("smollm2")) == (100, 1)
