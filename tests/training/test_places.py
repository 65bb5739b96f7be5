"""Runs that take the places of those that ended: each as it would be alone, whatever ended it and when."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from helpers.models import PLAIN, prompts, random_t5, relative, toy_encoded, toy_task
from softstart.errors import SoftstartError
from softstart.storage.tensors import load_tensors, save_tensors
from softstart.training import adaptation
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import encode_task
from softstart.training.evaluation import Evaluation
from softstart.training.optimizers import SGD
from softstart.training.places import Places, whole_groups

HOW = Evaluation(scoring="rank")


@given(
    sizes=st.lists(st.integers(1, 4), max_size=8),
    most=st.none() | st.integers(1, 6),
    draw=st.randoms(use_true_random=False),
)
def test_every_run_gets_one_place_in_turn_and_never_too_many_train(sizes, most, draw):
    numbers = iter(range(100))
    groups = [[next(numbers) for _ in range(size)] for size in sizes]
    places, begun = Places(groups, most), []
    while True:
        entered = places.fill()
        begun += entered.values()
        assert places.taken.items() >= entered.items()
        training = set(places.taken.values())
        assert most is None or len(training) <= most or any(training <= set(group) for group in groups)
        if not training:
            break
        room = (most or sum(sizes)) - len(training)
        assert not places.waiting or len(places.waiting[0]) > room  # nobody waits for nothing
        for place in draw.sample(list(places.taken), draw.randint(1, len(training))):
            places.leave(place)
    assert begun == list(range(sum(sizes)))


class Interrupted(Exception):
    """Ends a pack from within."""


def after(calls):
    """Progress that ends a pack at a call."""

    def count(done, note=""):
        nonlocal calls
        calls -= 1
        if not calls:
            raise Interrupted

    return count


def bits(result):
    kept = {step: prompt.numpy().tobytes() for step, prompt in result.kept.items()}
    prompt = result.prompt.numpy().tobytes()
    return str({**vars(result), "prompt": prompt, "kept": sorted(kept.items())})


@pytest.fixture(scope="module")
def small():
    """A model, and tasks of 4 and 7 rows."""
    backbone = random_t5()
    tasks = [encode_task(toy_task(f"task{n}", rows=n, seed=n), backbone, PLAIN) for n in (4, 7)]
    return backbone, tasks


@pytest.fixture(scope="module")
def erratic():
    """Gradients and scores that are quick functions of a prompt and its rows; some losses are not finite."""

    def hashed(prompt):
        return crc32(prompt.numpy().tobytes()) / 2**32

    def gradients(backbone, stack, batch, *rest, **options):
        slopes, losses = torch.zeros_like(stack), torch.zeros(len(stack), dtype=stack.dtype)
        for i, prompt in enumerate(stack):
            rows = batch.input_ids[batch.run == i].double()
            slopes[i] = prompt / 4 + rows.sum() % 5 - 2
            losses[i] = math.nan if hashed(prompt) > 0.97 else rows.sum()
        return losses, slopes

    def scores(backbone, stack, jobs, how):
        return [math.floor(hashed(stack[job.prompt]) * 8) / 8 for job in jobs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "run_gradients", gradients)
        patch.setattr(adaptation, "evaluate", scores)
        yield


@st.composite
def packs(draw):
    """What the runs of a pack have in common, and (task, sample, learning rate, group) of each."""
    steps, every = draw(st.integers(1, 13)), draw(st.integers(1, 4))
    marks = st.lists(st.integers(1, steps), unique=True, max_size=2).map(sorted).map(tuple)
    config = AdaptConfig(
        steps=steps, batch_size=3, eval_every=every, eval_backoff=draw(st.integers(1, 4)),
        budgets=draw(marks), rungs=draw(marks), eval_start=draw(st.booleans()),
        patience=draw(st.none() | st.integers(1, 3)), epochs=draw(st.none() | st.integers(1, 6)),
        select=draw(st.sampled_from(["best", "last"])), batch_parts=draw(st.sampled_from([1, 3])),
        optimizer=SGD(),  # entry by entry, so that the bits of a run do not depend on the size of the stack
    )  # fmt: skip
    rates, groups = st.sampled_from([0.5, 0.1]), st.sampled_from([None, "a", "b"])
    run = st.tuples(st.integers(0, 1), st.sampled_from([13, 21]), rates, groups)
    return config, draw(st.lists(run, min_size=1, max_size=6))


@settings(max_examples=40, phases=(Phase.explicit, Phase.generate))
@given(pack=packs(), places=st.integers(1, 4), calls=st.integers(1, 40), later=st.integers(1, 4))
def test_through_any_places_every_run_is_what_it_is_alone(small, erratic, pack, places, calls, later):
    backbone, tasks = small
    config, drawn = pack
    starts = prompts(backbone, runs=len(drawn), scale=0.3)
    runs = [
        AdaptRun(starts[i], tasks[task], sample, lr, seed=i, group=group)
        for i, (task, sample, lr, group) in enumerate(drawn)
    ]
    total, done = 0.0, []
    for group in whole_groups([run.group if config.rungs else None for run in runs], 1):
        done += zip(group, adapt(backbone, [runs[i] for i in group], config), strict=True)
    alone = [bits(result) for _, result in sorted(done)]

    def count(steps, note=""):
        nonlocal total
        total += steps

    through = adapt(backbone, runs, config, places=places, progress=count)
    assert [bits(result) for result in through] == alone
    assert total == config.steps * len(runs)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pack.safetensors"
        with suppress(Interrupted):
            adapt(backbone, runs, config, places=places, checkpoint=file, progress=after(calls))
        resumed = adapt(backbone, runs, config, places=later, checkpoint=file)
    assert [bits(result) for result in resumed] == alone


def make_runs(backbone, lrs):
    task, starts = toy_encoded(backbone), prompts(backbone, runs=2)
    return [AdaptRun(start, task, 13, lr, seed=i) for i, start in enumerate(starts) for lr in lrs]


def test_a_pack_stays_full_until_nobody_waits_and_every_run_is_what_it_is_alone(t5, monkeypatch):
    exact, sizes = adaptation.run_gradients, []

    def noted(backbone, stack, *rest, **options):
        sizes.append(len(stack))
        return exact(backbone, stack, *rest, **options)

    monkeypatch.setattr(adaptation, "run_gradients", noted)
    runs = make_runs(t5, lrs=(1e-9, 3.0, math.inf, 0.5))
    settings = AdaptConfig(steps=16, batch_size=3, eval_every=2, patience=2)
    through = adapt(t5, runs, settings, HOW, places=3)
    assert sizes[0] == 3
    ends = {(result.steps, result.status) for result in through}
    assert {(4, "stopped"), (1, "diverged")} <= ends  # 1e-9: nothing changes
    assert len(ends) > 3
    # A place that a run leaves between two evaluations is free until the next one.
    waiting = [size for size, later in zip(sizes, sizes[2:], strict=False) if later == 3]
    assert waiting.count(3) >= len(waiting) - 2
    for run, got in zip(runs, through, strict=True):
        (alone,) = adapt(t5, [run], settings, HOW)
        assert relative(got.prompt, alone.prompt) < 1e-10
        assert (got.dev, got.best_step, got.steps, got.status, got.tokens) == (
            alone.dev, alone.best_step, alone.steps, alone.status, alone.tokens,
        )  # fmt: skip
        assert [point[:2] for point in got.curve] == [point[:2] for point in alone.curve]


def test_resumed_through_places_equals_uninterrupted_bit_for_bit(tmp_path):
    backbone = random_t5(torch.float32)
    runs = make_runs(backbone, lrs=(1e-9, 3.0, 0.5))
    settings = AdaptConfig(steps=12, batch_size=3, eval_every=2, patience=2, eval_backoff=2)
    whole = [bits(result) for result in adapt(backbone, runs, settings, HOW, places=2)]
    for calls in (4, 8, 13):
        file = tmp_path / f"{calls}.safetensors"
        with pytest.raises(Interrupted):
            adapt(backbone, runs, settings, HOW, places=2, checkpoint=file, progress=after(calls))
        # The number of places is that of the checkpoint.
        resumed = adapt(backbone, runs, settings, HOW, places=calls, checkpoint=file)
        assert [bits(result) for result in resumed] == whole


def test_a_checkpoint_from_before_there_were_places_goes_on(tmp_path):
    """Every run had its row in the stacks until the end, and what it ended with was kept at the end."""
    backbone = random_t5(torch.float32)
    runs = make_runs(backbone, lrs=(1e-9, 3.0, math.inf))
    settings = AdaptConfig(steps=12, batch_size=3, eval_every=2, patience=2, budgets=(3,))
    whole = [bits(result) for result in adapt(backbone, runs, settings, HOW)]
    file = tmp_path / "pack.safetensors"
    with pytest.raises(Interrupted):
        adapt(backbone, runs, settings, HOW, checkpoint=file, progress=after(6))
    tensors, header = load_tensors(file)
    assert {result["status"] for result in header["results"]} == {"running", "stopped", "diverged"}
    del header["places"]
    for r, result in enumerate(header["results"]):
        if result["status"] != "running":
            final = result["best_step"]
            if final in result["kept"]:
                result["kept"].remove(final)
                del tensors[f"kept.{r}.{final}"]
    for places in (None, 2):
        save_tensors(file, tensors, header)
        resumed = adapt(backbone, runs, settings, HOW, places=places, checkpoint=file)
        assert [bits(result) for result in resumed] == whole


def test_no_place_at_all_is_refused(t5):
    with pytest.raises(SoftstartError, match="a pack cannot train with 0 places"):
        adapt(t5, make_runs(t5, lrs=(0.5,)), AdaptConfig(steps=1), HOW, places=0)


def test_one_run_after_another_is_possible_where_rows_interact(exact_norm):
    backbone = random_t5(placement="after_padding")
    runs, settings = make_runs(backbone, lrs=(0.5, 0.1)), AdaptConfig(steps=3, eval_every=2)
    through = adapt(backbone, runs, settings, HOW, places=1)
    alone = [adapt(backbone, [run], settings, HOW)[0] for run in runs]
    assert [bits(result) for result in through] == [bits(result) for result in alone]
    rivals = [replace(run, group="all") for run in runs]
    with pytest.raises(SoftstartError, match="cannot share a pack"):
        adapt(backbone, rivals, replace(settings, rungs=(1,)), HOW, places=1)
