"""Several processes: the same numbers as one, whatever their number; a lost one ends the job and no more."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import distributed as dist

from helpers.distributed_job import Stop, everything, interrupted, long, small_world
from helpers.models import random_batch, random_t5, relative, toy_encoded
from helpers.paths import ROOT
from helpers.toy_study import SOFTSTART, call
from softstart import Backbone, SoftPrompt
from softstart.algorithms import Episodes
from softstart.errors import SoftstartError
from softstart.gym.source_folder import source_tasks
from softstart.gym.tables import RawData
from softstart.storage.tensors import load_tensors
from softstart.training.distributed import Processes, this_job
from softstart.yourtasks import learn_start, outer_loop

HELPERS = ROOT / "tests" / "helpers"
ENOUGH = 240
"""Seconds after which a job that should have ended hangs."""


def launcher(count, *more):
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count),
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", *map(str, more),
    ]  # fmt: skip


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HELPERS.parent)}


@functools.cache
def alone():
    """What one process computes without any group."""
    learned = long(*small_world())
    return [*everything(), ("resumed", learned.prompt, {"curve": learned.curve, "work": vars(learned.work)})]


def compared(tensors, facts, tolerance):
    for name, prompt, expected in alone():
        assert relative(tensors[name], prompt) <= tolerance, name
        got = facts[name]
        if "curve" in expected and "work" in expected:
            assert got["work"]["tokens"] == expected["work"]["tokens"], name
            assert got["work"]["flops"] == pytest.approx(expected["work"]["flops"], rel=1e-12)
            assert len(got["curve"]) == len(expected["curve"])
            for mine, theirs in zip(got["curve"], expected["curve"], strict=True):
                assert mine.keys() == theirs.keys()
                assert list(mine.values()) == pytest.approx(list(theirs.values()), rel=1e-5), name
        else:
            assert (got["status"], got["steps"], got["tokens"]) == tuple(
                expected[key] for key in ("status", "steps", "tokens")
            )


def test_a_group_of_one_process_computes_the_same_bits():
    expected = alone()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert this_job() == Processes(0, 1)
        got = everything()
    finally:
        dist.destroy_process_group()
    for (name, prompt, facts), (_, alike, same) in zip(expected[:-1], got, strict=True):
        assert torch.equal(prompt, alike), name
        assert str(facts) == str(same)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_compute_what_one_does(tmp_path, count):
    backbone, tasks = small_world()
    interrupted(backbone, tasks, tmp_path / "alone.safetensors", 2)
    job = [*launcher(count), str(HELPERS / "distributed_job.py"), str(tmp_path)]
    done = subprocess.run(job, capture_output=True, text=True, env=environment(), timeout=ENOUGH)
    assert done.returncode == 0, done.stderr
    loaded = [load_tensors(tmp_path / f"{rank}.safetensors") for rank in range(count)]
    compared(*loaded[0], 1e-6)
    # One process goes on from what several have begun, as they did from what one had begun.
    assert len(load_tensors(tmp_path / "together.safetensors")[1]["curve"]) == 2
    resumed = long(backbone, tasks, tmp_path / "together.safetensors")
    assert relative(resumed.prompt, alone()[-1][1]) < 1e-6
    for tensors, facts in loaded[1:]:
        assert all(torch.equal(tensors[name], prompt) for name, prompt in loaded[0][0].items())
        for name, mine in facts.items():
            assert mine.get("work") == loaded[0][1][name].get("work")


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("mixture", [False, True])
def test_shares_are_a_partition_and_weigh_what_they_hold(world, mixture):
    lengths = [(4, 1 + i % 3, 0 if mixture else i // 2) for i in range(6)]
    batch = random_batch(lengths, dropout_seed=7)
    tasks = 1 if mixture else 3
    whole = Episodes(tasks, [] if mixture else [batch], batch)
    rows, weights = [], []
    for rank in range(world):
        mine, weight = Processes(rank, world).share(whole, mixture=mixture)
        weights.append(weight)
        assert set(mine.query.run.tolist()) == set(range(mine.tasks))
        if weight:
            rows += [(tuple(ids), seed) for ids, seed in _rows(mine.query)]
    assert sorted(ids for ids, _ in rows) == sorted(ids for ids, _ in _rows(batch))
    if world > 1:
        assert sum(weights) == (int((batch.labels >= 0).sum()) if mixture else 3)
        assert weights[-1] > 0 or world > tasks
        assert len({seed for _, seed in rows}) == sum(w > 0 for w in weights)
    assert rows[0][1] == 7  # the first process draws the masks of a process alone


def _rows(batch):
    lengths = batch.attention_mask.sum(1).tolist()
    return [(tuple(batch.input_ids[i, :n].tolist()), batch.seed) for i, n in enumerate(lengths)]


def accelerate(count):
    """Its launcher; without ``--multi_gpu``, which asks for no GPU, it starts processes of a CPU by MPI."""
    return [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu",
        "--num_processes", str(count), "--num_machines", "1", "--mixed_precision", "no",
        "--dynamo_backend", "no", "--main_process_port", "0",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("by", ["torchrun", "accelerate"])
def test_processes_that_differ_stop_before_they_mix(tmp_path, by):
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from helpers.distributed_job import differing\n"
        "from softstart.errors import SoftstartError\n"
        "for do in differing():\n"
        "    try:\n"
        "        do()\n"
        "    except SoftstartError as problem:\n"
        "        print(problem, file=sys.stderr)\n"
    )
    if by == "accelerate":
        pytest.importorskip("accelerate")
    command = launcher(2) if by == "torchrun" else accelerate(2)
    job = [*command, str(script)]
    done = subprocess.run(job, capture_output=True, text=True, env=environment(), timeout=ENOUGH)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the processes of this job do not begin alike") == 2 * 3


@pytest.fixture
def sources(tmp_path):
    """A backbone on disk and a folder of source tables."""
    backbone = random_t5(torch.float32)
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "sources").mkdir()
    for name in ("a", "b", "c"):
        task = toy_encoded(backbone, name, seed=ord(name))
        lines = [
            f"{backbone.tokenizer.decode(ids[:-1])}\t{answers[0]}\n"
            for ids, answers in zip(task.test.inputs, task.test.references, strict=True)
        ]
        (tmp_path / "sources" / f"{name}.tsv").write_text("input\toutput\n" + "".join(lines))
    return tmp_path


def learn(sources, out, steps):
    return [
        "meta-train", str(sources / "sources"), "--out", str(out), "--backbone", str(sources / "model"),
        "--device", "cpu", "--algorithm", "maml", "--set", "meta_batch=3", "--set", "inner_lr=0.1",
        "--set", "checkpoint_every=1", "--steps", str(steps), "--length", "3", "--lr", "0.3",
        "--lr-unit", "absolute",
    ]  # fmt: skip


@pytest.mark.slow
def test_accelerate_learns_the_start_that_one_process_learns(sources):
    pytest.importorskip("accelerate")
    learned = []
    for name, command in (("one", [sys.executable]), ("two", accelerate(2))):
        job = [*command, "-m", "softstart", *learn(sources, sources / name, 4)]
        done = subprocess.run(job, capture_output=True, text=True, env=environment(), timeout=ENOUGH)
        assert done.returncode == 0, done.stderr
        learned.append(SoftPrompt.load(sources / name).tensor)
    assert relative(learned[1], learned[0]) < 1e-6


def test_a_lost_process_ends_the_job_and_fewer_go_on_from_its_checkpoint(sources):
    out, steps = sources / "out", 100_000
    job = subprocess.Popen(
        [*launcher(2), "-m", "softstart", *learn(sources, out, steps)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + ENOUGH
        while not (saved := list(out.glob("unfinished-*"))):
            assert job.poll() is None, job.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True, text=True)
        victim = max(map(int, listed.stdout.split()))
        os.kill(victim, signal.SIGKILL)
        _, errors = job.communicate(timeout=ENOUGH)
    finally:
        job.kill()
    assert job.returncode != 0
    reported = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(reported) == 1
    assert (
        "another process of this job has ended" in reported[0]
        or "interrupted; what was finished is kept" in reported[0]
    )
    # The checkpoint is whole, and one process goes on from it.
    (file,) = saved
    reached = len(load_tensors(file)[1]["curve"])
    assert 1 <= reached < steps
    heard = []

    def hear(done, note=""):
        heard.append((done, note))
        if len(heard) == 2:
            raise Stop

    chosen, config = outer_loop(
        "maml", steps=steps, overrides=["meta_batch=3", "inner_lr=0.1", "checkpoint_every=1"]
    )
    with pytest.raises(Stop):
        learn_start(
            Backbone.from_pretrained(str(sources / "model"), device="cpu"),
            source_tasks(sources / "sources", RawData("")), chosen, config, length=3, folder=out,
            progress=hear,
        )  # fmt: skip
    assert heard[0] == (reached, "resumed")


def test_commands_that_cannot_share_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = call(SOFTSTART, "demo")
    assert done.returncode == 1
    assert "error: softstart demo cannot share its work under torchrun or accelerate launch" in done.stderr
    assert "--workers" in done.stderr


def test_sharded_weights_are_refused(monkeypatch):
    for name, value in (
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SoftstartError, match="FSDP cannot be used: it has no second derivative"):
        this_job()
