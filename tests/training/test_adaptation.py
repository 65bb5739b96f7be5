"""A pack of runs against the same runs alone; selection, stopping, resuming."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.families import random_backbone
from helpers.models import PLAIN, prompts, random_t5, relative, toy_encoded, toy_task
from softstart.backbone import collate
from softstart.errors import SoftstartError
from softstart.gym.task import Example, Sample
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import encode_task, epoch_slice, rng_for, to_batch
from softstart.training.evaluation import Evaluation, Job, evaluate, predict
from softstart.training.gradients import run_gradients
from softstart.training.optimizers import OPTIMIZERS, SGD
from softstart.training.places import whole_groups

# Ranking label words: a random network scores between 0 and 1 with it, while it never writes a label freely.
HOW = Evaluation(scoring="rank")


def make_runs(backbone, lrs=(0.5, 0.1, 0.02), samples=(13, 21)):
    tasks = [toy_encoded(backbone, "one"), toy_encoded(backbone, "two", seed=5)]
    starts = prompts(backbone, runs=2)
    return [
        AdaptRun(starts[i], task, sample, lr, seed=i)
        for i, task in enumerate(tasks)
        for sample in samples
        for lr in lrs
    ]


def config(**changes):
    return AdaptConfig(**{"steps": 12, "batch_size": 3, "eval_every": 4, **changes})


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw", "sgd"])
@pytest.mark.parametrize("select", ["best", "last"])
def test_a_pack_ends_as_its_runs_do_alone(t5, optimizer, select):
    runs = make_runs(t5)
    settings = config(optimizer=OPTIMIZERS[optimizer](), select=select)
    packed = adapt(t5, runs, settings, HOW)
    for run, got in zip(runs, packed, strict=True):
        (alone,) = adapt(t5, [run], settings, HOW)
        assert relative(got.prompt, alone.prompt) < 1e-10
        assert (got.dev, got.best_step, got.steps, got.status) == (
            alone.dev, alone.best_step, alone.steps, alone.status,
        )  # fmt: skip
        assert [p[:2] for p in got.curve] == [p[:2] for p in alone.curve]


def test_micro_batches_do_not_change_a_pack(t5):
    runs = make_runs(t5)
    whole, cut = (adapt(t5, runs, config(max_tokens=m), HOW) for m in (None, 40))
    for a, b in zip(whole, cut, strict=True):
        assert relative(a.prompt, b.prompt) < 1e-10


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    backbone = random_t5(torch.float32)
    runs, file = make_runs(backbone), tmp_path / "pack.safetensors"
    settings = config(steps=20, patience=3)
    whole = adapt(backbone, runs, settings, HOW)

    def kill(done, note=""):
        nonlocal steps
        steps += done
        if steps >= 10 * len(runs):
            raise KeyboardInterrupt

    steps = 0
    with pytest.raises(KeyboardInterrupt):
        adapt(backbone, runs, settings, HOW, checkpoint=file, progress=kill)
    for a, b in zip(whole, adapt(backbone, runs, settings, HOW, checkpoint=file), strict=True):
        assert torch.equal(a.prompt, b.prompt)
        assert (a.dev, a.best_step, a.steps, a.status) == (b.dev, b.best_step, b.steps, b.status)
        assert str(a.curve) == str(b.curve)


def test_the_best_prompt_is_a_copy_that_scores_what_its_curve_says(t5):
    runs = make_runs(t5, lrs=(2.0,))
    results = adapt(t5, runs, config(steps=24, eval_every=2), HOW)
    moved_on = 0
    for run, result in zip(runs, results, strict=True):
        scores = {step: dev for step, dev, _ in result.curve}
        assert result.dev == max(scores.values()) == scores[result.best_step]
        assert result.best_step == min(s for s, d in scores.items() if d == result.dev)
        job = Job(0, run.task, run.task.dev[run.sample])
        assert evaluate(t5, result.prompt[None], [job], HOW) == [result.dev]
        moved_on += scores[24] != result.dev
    last = adapt(t5, runs, config(steps=24, eval_every=2, select="last"), HOW)
    for run, result in zip(runs, last, strict=True):
        job = Job(0, run.task, run.task.dev[run.sample])
        assert evaluate(t5, result.prompt[None], [job], HOW) == [result.curve[-1][1]]
    assert moved_on  # otherwise best and last would look the same here


def test_patience_stops_a_run_and_its_neighbors_go_on(t5):
    runs = make_runs(t5, lrs=(1e-9, 3.0, 1.0))
    results = adapt(t5, runs, config(steps=40, patience=2), HOW)
    for run, result in zip(runs, results, strict=True):
        scores = [dev for _, dev, _ in result.curve]
        if run.lr == 1e-9:  # nothing changes: the start stays best, two evaluations without a better score
            assert (result.status, result.steps, len(set(scores))) == ("stopped", 8, 1)
        stalled = [max(scores[: i + 1]) == max(scores[: i + 3]) for i in range(len(scores) - 2)]
        assert stalled.index(True) == len(stalled) - 1 if result.status == "stopped" else not any(stalled)
    assert max(r.steps for r in results) > 8


@pytest.mark.parametrize("select", ["best", "last"])
def test_a_run_that_cannot_get_better_stops_with_the_prompt_it_would_end_with(t5, select):
    runs = [
        replace(run, task=replace(run.task, dev={s: rows.first(3) for s, rows in run.task.dev.items()}))
        for run in make_runs(t5, lrs=(3.0, 1.0, 0.3))
    ]
    settings = config(steps=40, eval_every=2, select=select)
    whole, cut = (adapt(t5, runs, replace(settings, stop_at_perfect=stop), HOW) for stop in (False, True))
    stopped = 0
    for all_of_it, result in zip(whole, cut, strict=True):
        assert relative(result.prompt, all_of_it.prompt) < 1e-10
        assert (result.dev, result.best_step) == (all_of_it.dev, all_of_it.best_step)
        if select == "best" and all_of_it.dev == 1:
            assert (result.status, result.steps) == ("stopped", all_of_it.best_step)
            stopped += 1
        else:
            assert (result.status, result.steps) == ("done", 40)
    assert stopped in ({0} if select == "last" else range(1, len(runs)))


def test_a_flat_curve_is_evaluated_ever_more_rarely_and_a_rising_one_is_not(t5):
    runs = make_runs(t5, lrs=(1e-9, 3.0, 1.0))
    often, rarely = (adapt(t5, runs, config(steps=45, eval_backoff=most), HOW) for most in (1, 4))
    assert [step for step, _, _ in rarely[0].curve] == [0, 4, 8, 16, 32, 45]  # 1e-9: nothing changes
    for all_of_it, result in zip(often, rarely, strict=True):
        dev, flat, due = {step: score for step, score, _ in all_of_it.curve}, 0, []
        best = dev[0]
        for step in range(4, 45, 4):
            flat += 1
            if flat in (1, 2, 4) or flat % 4 == 0:
                due.append(step)
                best, flat = (dev[step], 0) if dev[step] > best else (best, flat)
        assert [step for step, _, _ in result.curve] == [0, *due, 45]
        assert all(dev[step] == score for step, score, _ in result.curve)
    assert len({len(result.curve) for result in rarely}) > 1  # some curves rose


def test_halving_stops_the_worse_half_of_each_group_and_changes_nothing_else(t5, tmp_path):
    runs = make_runs(t5, lrs=(0.02, 3.0, 0.5, 1e-9), samples=(13,))
    grouped = [replace(run, group=run.task.name) for run in runs]
    settings = config(steps=12, eval_every=6)
    free = adapt(t5, runs, replace(settings, budgets=(3, 7)), HOW)
    halved = adapt(t5, grouped, replace(settings, rungs=(3, 7)), HOW)

    def best(result, step):
        return max(dev for s, dev, _ in result.curve if s <= step)

    for group in (range(4), range(4, 8)):
        first = sorted(group, key=lambda r: -best(free[r], 3))[:2]  # a stable sort: ties to the earlier run
        last = sorted(sorted(first), key=lambda r: -best(free[r], 7))[0]
        for r in group:
            steps = 12 if r == last else 7 if r in first else 3
            assert (halved[r].steps, halved[r].status) == (steps, "done" if r == last else "stopped")
            assert [p[:2] for p in halved[r].curve] == [p[:2] for p in free[r].curve if p[0] <= steps]
            assert halved[r].dev == best(free[r], steps)
        assert relative(halved[last].prompt, free[last].prompt) < 1e-10
    # A run without a group has no rivals, and an interrupted pack halves as it would have.
    assert all(r.status == "done" for r in adapt(t5, runs, replace(settings, rungs=(3, 7)), HOW))
    file, count = tmp_path / "pack.safetensors", 0

    def kill(done, note=""):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(t5, grouped, replace(settings, rungs=(3, 7)), HOW, checkpoint=file, progress=kill)
    resumed = adapt(t5, grouped, replace(settings, rungs=(3, 7)), HOW, checkpoint=file)
    assert [(r.steps, r.status) for r in resumed] == [(r.steps, r.status) for r in halved]


@given(groups=st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=20), size=st.integers(1, 6))
def test_packs_hold_every_run_once_and_part_no_group(groups, size):
    packs = whole_groups(groups, size)
    assert sorted(i for pack in packs for i in pack) == list(range(len(groups)))
    for name in ("a", "b", "c"):
        assert len({p for p, pack in enumerate(packs) for i in pack if groups[i] == name}) <= 1
    for pack in packs:
        assert len(pack) <= size or len({groups[i] for i in pack}) == 1


def test_a_diverging_run_keeps_its_best_prompt_and_spares_its_neighbors(t5):
    runs = make_runs(t5, lrs=(0.1, math.inf), samples=(13,))
    results = adapt(t5, runs, config(), HOW)
    (alone,) = adapt(t5, runs[:1], config(), HOW)
    assert [r.status for r in results] == ["done", "diverged"] * 2
    assert results[1].steps == 1
    assert torch.equal(results[1].prompt, runs[1].start)
    assert results[1].dev == results[1].curve[0][1]
    assert relative(results[0].prompt, alone.prompt) < 1e-10


def test_an_unknown_sample_is_refused(t5):
    run = make_runs(t5)[0]
    with pytest.raises(SoftstartError, match=r"task 'one' has no sample 99\. It has 13, 21"):
        adapt(t5, [AdaptRun(run.start, run.task, 99, 0.1)], config(), HOW)


def rows_of(backbone, name, rows, seed=0):
    return encode_task(toy_task(name, rows=rows, seed=seed), backbone, PLAIN)


def test_epochs_end_a_run_early_with_an_evaluation_and_its_neighbors_go_on(t5):
    few, many = rows_of(t5, "few", 4), rows_of(t5, "many", 8, seed=5)
    starts = prompts(t5, runs=2)
    runs = [AdaptRun(starts[0], few, 13, 0.5), AdaptRun(starts[1], many, 13, 0.5)]
    settings = config(steps=9, batch_size=3, eval_every=6, epochs=3, select="last")
    packed = adapt(t5, runs, settings, HOW)
    # Three epochs of ceil(4 / 3) steps, and of ceil(8 / 3).
    assert [(r.steps, r.status) for r in packed] == [(6, "done"), (9, "done")]
    settings = replace(settings, steps=20, eval_every=4)
    packed = adapt(t5, runs, settings, HOW)
    assert [[point[0] for point in r.curve] for r in packed] == [[0, 4, 6], [0, 4, 8, 9]]
    for run, got in zip(runs, packed, strict=True):
        (alone,) = adapt(t5, [run], replace(settings, epochs=None, steps=got.steps), HOW)
        assert relative(got.prompt, alone.prompt) < 1e-10
        assert [p[:2] for p in got.curve] == [p[:2] for p in alone.curve]
    # The last step is evaluated although a flat curve would not be: six is the third multiple of two.
    flat = adapt(
        t5, [replace(run, lr=1e-9) for run in runs], replace(settings, eval_every=2, eval_backoff=4), HOW
    )
    assert [[point[0] for point in r.curve] for r in flat] == [[0, 2, 4, 6], [0, 2, 4, 8, 9]]


def test_parts_of_a_batch_are_averaged_as_processes_would(t5):
    tasks = [
        Example(" ".join(f"w{w}" for w in range(10, 12 + i)), (" ".join(["w3"] * (1 + i * i)),))
        for i in range(4)
    ]
    task = replace(toy_task("parts"), samples={13: Sample(13, tuple(tasks), tuple(tasks))}, kind="other")
    encoded, (start,) = encode_task(task, t5, PLAIN), prompts(t5, runs=1)
    sgd = SGD(weight_decay=0.0)
    settings = config(steps=1, batch_size=4, batch_parts=2, select="last", optimizer=sgd)
    (got,) = adapt(t5, [AdaptRun(start, encoded, 13, 0.5)], settings, HOW)

    order = epoch_slice(4, 0, 4, 0, 13)
    rows = encoded.train[13]
    means = []
    for part in (order[0::2], order[1::2]):
        leaf = start[None].clone().requires_grad_()
        batch = to_batch(rows.pick(part, rng_for(0)), [0] * 2, 0)
        sums, counts = t5.nll(leaf, batch)
        means.append(torch.autograd.grad(sums.sum() / counts.sum(), leaf)[0][0])
    assert relative(got.prompt, start - 0.5 * (means[0] + means[1]) / 2) < 1e-12
    (whole,) = adapt(t5, [AdaptRun(start, encoded, 13, 0.5)], replace(settings, batch_parts=1), HOW)
    assert relative(got.prompt, whole.prompt) > 1e-6  # outputs differ in length, so the means do


def test_an_order_that_is_kept_gives_the_same_batches_in_every_epoch():
    epochs = [epoch_slice(6, 6 * e, 6, 1, 2, reshuffle=False) for e in range(3)]
    assert epochs[0] == epochs[1] == epochs[2] == epoch_slice(6, 0, 6, 1, 2)
    assert epoch_slice(6, 6, 6, 1, 2) != epochs[0]


def test_without_reshuffling_a_run_sees_the_same_order_in_every_epoch(t5):
    task, (start,) = rows_of(t5, "order", 4), prompts(t5, runs=1)
    sgd = SGD(weight_decay=0.0)
    settings = config(steps=4, batch_size=2, eval_every=4, optimizer=sgd, reshuffle=False)
    (got,) = adapt(t5, [AdaptRun(start, task, 13, 0.5)], settings, HOW)
    rows, prompt = task.train[13], start[None]
    for step in range(4):
        part = epoch_slice(4, 0, 4, 0, 13)[2 * (step % 2) :][:2]
        _, slope = run_gradients(t5, prompt, to_batch(rows.pick(part, rng_for(0)), [0, 0], 0))
        prompt = prompt - 0.5 * slope
    (last,) = adapt(t5, [AdaptRun(start, task, 13, 0.5)], replace(settings, select="last"), HOW)
    assert relative(last.prompt, prompt[0]) < 1e-12
    assert got.curve == last.curve


def test_after_padding_is_the_published_placement_and_never_packs(exact_norm):
    t5 = random_t5(placement="after_padding")
    (prompt,) = prompts(t5, runs=1)
    batch = collate([[5, 6], [7, 8, 9, 10]], [[3], [4]], [0, 0], pad=0)
    sums, _ = t5.nll(prompt[None], batch)
    # Against the model itself: tokens, padding without attention, then the prompt.
    embeds = torch.cat((t5.embedding(batch.input_ids), prompt.expand(2, -1, -1)), 1)
    mask = torch.cat((batch.attention_mask, torch.ones(2, len(prompt), dtype=torch.long)), 1)
    logits = t5.model(inputs_embeds=embeds, attention_mask=mask, labels=batch.labels).logits
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")
    assert relative(sums, losses.sum(1)) < 1e-10
    alone, _ = t5.nll(prompt[None], collate([[5, 6]], [[3]], [0], pad=0))
    assert relative(sums[:1], alone) > 1e-6  # which is why runs cannot share a batch
    runs = make_runs(t5, lrs=(0.5, 0.1), samples=(13,))[:2]
    with pytest.raises(SoftstartError, match=r"cannot share a pack.*pack_size: 1"):
        adapt(t5, runs, config(), HOW)
    jobs = [Job(0, runs[0].task, runs[0].task.test), Job(0, runs[0].task, runs[0].task.dev[13])]
    together = predict(t5, prompt[None], jobs, HOW)
    assert together == [predict(t5, prompt[None], [job], HOW)[0] for job in jobs]
    (got,) = adapt(t5, runs[:1], config(), HOW)
    assert got.status == "done"
    causal = random_backbone("gpt2")
    with pytest.raises(SoftstartError, match="causal"):
        type(causal)(causal.model, causal.tokenizer, placement="after_padding")
