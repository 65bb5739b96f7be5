"""The memory model: bytes of passes that are never computed are those of the passes that are."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig

from helpers.families import random_backbone
from helpers.models import random_t5
from helpers.paths import ROOT
from helpers.toy_study import SOFTSTART, call, toy
from softstart.backbone import load_backbone
from softstart.backbone.memory_model import META, Heap, Ledger, equal_rows, traced, weight_bytes
from softstart.backbone.unpadded import Unpadded
from softstart.errors import SoftstartError
from softstart.study.cost import memory_needs as needs
from softstart.study.cost.estimate import Estimate, Rows, estimate
from softstart.study.cost.gpu_hours import cost_lines, measured_rate, row_flops
from softstart.study.cost.memory_needs import Lengths, Needs, WorkPeak, shape_of, study_needs
from softstart.study.declare.study_file import variants_of
from softstart.study.plan.plan import make_plan
from softstart.study.run.resources import Resources
from softstart.study.run.work import UnpackedRun, Worker
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps
from softstart.training.objective import PromptObjective


class Real(Ledger):
    """The ledger on real tensors."""

    def __enter__(self):
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *exc):
        TorchDispatchMode.__exit__(self, *exc)


def saved(backbone, folder):
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("name", ["t5", "llama", "bart"])
@pytest.mark.parametrize("what", [run_gradients, run_hvps])
def test_a_pass_without_numbers_holds_the_bytes_of_the_real_one(tmp_path, name, what, recomputed):
    made = random_t5(torch.float32) if name == "t5" else random_backbone(name, torch.float32)
    path = saved(made, tmp_path)
    real = load_backbone(path, device="cpu", gradient_checkpointing=recomputed)
    shadow = load_backbone(path, gradient_checkpointing=recomputed, weights=False)
    batch = equal_rows(6, 20, 3, runs=2)

    def work(backbone, device):
        stack = torch.full((2, 5, backbone.width), 0.1, device=device)
        more = () if what is run_gradients else (torch.ones_like(stack),)
        what(backbone, stack, batch, *more)

    work(real, "cpu")  # what is made once is there
    traced(lambda: work(shadow, META))
    predicted = traced(lambda: work(shadow, META)).tensors
    with Real() as measured:
        work(real, "cpu")
    # In models this small masks weigh as much as activations; see benchmarks/memory for real ones.
    assert predicted == pytest.approx(measured.peak, rel=0.1)
    assert measured.live == 0
    assert weight_bytes(shadow) == weight_bytes(real)


def test_ranking_many_words_takes_what_ranking_one_does_and_is_planned_for(world):
    backbone, batch = shape_of("google/t5-small-lm-adapt", "float32"), equal_rows(8, 90, 1)
    stack = torch.empty(1, 10, backbone.width, device=META)

    def peak(words, bound):
        candidates, of = torch.arange(4 * words).view(1, words, 4), torch.zeros(8, dtype=torch.long)
        return traced(lambda: backbone.rank(stack, batch, candidates, bound, of)).tensors

    peak(1, 800)  # what is made once is there
    assert peak(24, 800) < 1.02 * peak(1, 800)
    assert peak(24, None) < 1.2 * peak(1, None)  # they share their text and a pass
    assert peak(400, None) > 1.5 * peak(1, None)
    study = toy(world)  # its scoring is by rank
    few, many = (
        needs._evaluation("", study, backbone, (16, 4, 512), 0, Lengths(90, 4, 8, (n, 4)), "cpu").measure(
            None
        )
        for n in (1, 400)
    )
    assert many > 1.5 * few


def test_nothing_is_left_of_what_is_gone_and_views_are_free():
    with Ledger() as ledger:
        a = torch.empty(100, device=META)
        b = a.view(10, 10).t()
        assert ledger.live == 400
        c = b + 1
        del a, b
        assert (ledger.live, ledger.peak) == (400, 800)
        del c
        assert ledger.live == 0


def test_the_heap_reuses_what_is_larger_and_grows_by_what_is_not():
    heap = Heap()
    for key in range(3):
        heap.take(key, 1 << 20)
    full = heap.peak
    assert 3 << 20 <= full <= (3 << 20) + 4096
    heap.give(1)
    heap.take(3, 1 << 19)  # fits into the gap
    assert heap.peak == full
    heap.take(4, 1 << 20)  # does not
    assert heap.peak >= full + (1 << 20)
    heap.take(5, 1 << 29)  # mapped on its own
    heap.give(5)
    assert heap.peak >= 1 << 29


def test_a_graph_that_is_not_kept_is_gone():
    backbone, batch = random_t5(torch.float32), equal_rows(4, 20, 3)
    stack = torch.full((1, 4, backbone.width), 0.1)

    def second_order(budget):
        loss = PromptObjective(backbone, None, budget)
        loss.expect([batch])
        loss.gradient(stack, batch)
        loss.hvp(stack, batch, stack)
        return loss.graphs.reused

    second_order(None)  # what is made once is there
    with Real() as measured:
        assert (second_order(100), measured.live) == (0, 0)
        assert (second_order(None), measured.live) == (1, 0)


def test_published_shapes_need_no_file_and_have_the_published_sizes():
    millions = {"base": 247.6, "large": 783.2, "xxl": 11135}
    for size, expected in millions.items():
        backbone = shape_of(f"google/t5-{size}-lm-adapt", "bfloat16")
        assert weight_bytes(backbone) / 2e6 == pytest.approx(expected, rel=0.01)
    with pytest.raises(SoftstartError, match="cannot be loaded"):
        shape_of("no/such-model", "float32")


def test_every_part_of_a_study_is_planned_and_more_work_needs_more(world):
    methods = {"pt": {}, "ft": {}, "maml": {"inner_lr": 0.1}, "fomaml": {"inner_lr": 0.1}}
    small, large = (study_needs(toy(world, pack_size=n, methods=methods)) for n in (1, 16))
    names = {part.name for part in small.peaks}
    assert {"adaptation", "evaluation", "fine-tuning", "meta-training maml"} <= names
    assert small.known
    sizes = [{part.name: part.bytes for part in needs.peaks} for needs in (small, large)]
    assert sizes[1]["adaptation"] > 4 * sizes[0]["adaptation"]
    assert sizes[0]["meta-training maml"] == sizes[1]["meta-training maml"]
    assert sizes[0]["meta-training maml"] > sizes[0]["meta-training fomaml"]
    large.check(2 * large.total, 2)
    with pytest.raises(SoftstartError, match="for 3 of them") as refused:
        large.check(2 * large.total, 3)
    assert "--workers 2" in refused.value.fix
    with pytest.raises(SoftstartError, match=r"a worker needs \d\.\d GiB on cpu, which has 0\.0 GiB"):
        large.check(1000)


def test_a_fine_tuning_takes_what_is_planned(world, tmp_path, monkeypatch):
    monkeypatch.setattr(Unpadded, "of", lambda mask: None)  # planned is for a GPU, which computes padding
    study = toy(world, methods={"ft": {}}, finetuning={"steps": 8, "eval_every": 2, "budgets": [4]})
    resources = Resources(variants_of(study), "cpu")
    planned = study_needs(study, "cuda")  # tensors only, and the best weights elsewhere
    weights = weight_bytes(resources.backbone("main"))
    (run, *_) = make_plan(study, resources.inputs()).runs
    resources.encoded(run.variant, run.task)
    with Real() as measured:
        done = UnpackedRun(run).perform(Worker(resources, tmp_path))
    assert len(done.tests) > 0
    assert max(part.bytes for part in planned.peaks) + weights == pytest.approx(measured.peak, rel=0.1)


def test_every_backbone_of_a_study_is_planned_for(world):
    small, variants = toy(world), {"short": {"prompt.length": 2}, "double": {"dtype": "float64"}}
    needs = study_needs(toy(world, variants=variants, finetuning_backbone=str(world / "model")), "cuda")
    # Twice each, at four bytes and at eight.
    assert needs.weights == 2 * 3 * weight_bytes(shape_of(small.backbone, "float32"))
    one = {part.name: part.bytes for part in study_needs(small, "cuda").peaks}
    for part in needs.peaks:
        assert part.bytes > 1.4 * one[part.name]


def test_the_planned_memory_decides_which_graphs_are_kept(world):
    def peak(memory, **meta):
        study = toy(world, methods={"maml": {"inner_lr": 0.1}}, meta={"steps": 2, **meta})
        return next(p.bytes for p in study_needs(study, "cuda", memory).peaks if "meta" in p.name)

    none, kept = peak(1000), peak(80 << 30)
    assert none == peak(80 << 30, memory_budget=1e-4) < kept == peak(1000, memory_budget=1000.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["google/t5-xl-lm-adapt", "llama"])
def test_a_study_of_a_large_model_is_planned_without_its_weights(world, tmp_path, name):
    billions = {"google/t5-xl-lm-adapt": 2.85, "llama": 6.738}[name]
    if name == "llama":  # its defaults are those of 7B
        LlamaConfig(bos_token_id=1, eos_token_id=1, pad_token_id=0).save_pretrained(tmp_path)
        random_t5(torch.float32).tokenizer.save_pretrained(tmp_path)
        name = str(tmp_path)
    text = {"template": "{input}", "max_input_tokens": 60, "max_output_tokens": 4}
    changes = {"backbone": name, "dtype": "bfloat16", "text": text, "methods": {"pt": {}}, "pack_size": 4}
    plain, recomputed = (
        study_needs(toy(world, **changes, gradient_checkpointing=on), "cuda", 80 << 30)
        for on in (False, True)
    )
    assert plain.weights == recomputed.weights == pytest.approx(2e9 * billions, rel=1e-3)
    assert recomputed.peaks[0].bytes < 0.5 * plain.peaks[0].bytes


def test_what_does_not_fit_is_cut_or_refused():
    def measure(tokens):
        return 10 + (tokens or 1000)

    part = WorkPeak("adaptation", measure(1000), "adaptation.max_tokens", 1000, measure)
    needs = Needs("cuda", 0, 100, [part], True)
    needs.check(1110)
    with pytest.raises(SoftstartError, match=r"smaller batches: --set adaptation\.max_tokens=250$"):
        needs.check(400)
    stuck = Needs("cuda", 0, 100, [WorkPeak("fine-tuning", 500, None, None, lambda _: 500)], True)
    with pytest.raises(SoftstartError, match="fine-tuning cannot be cut to fit"):
        stuck.check(300)


def test_doctor_plans_a_study(world):
    command = [SOFTSTART, "doctor", "--plan", world / "study.yaml", "--workers", "2"]
    command += [
        x for k in ("gym", "model") for x in ("--set", f"{'backbone' if k == 'model' else k}={world / k}")
    ]
    done = call(*command)
    assert done.returncode == 0, done.stderr
    assert "meta-training maml" in done.stdout
    assert re.search(r"peak on cpu: [\d.]+ GiB x 2 workers of", done.stdout)


def test_gpu_hours_are_the_arithmetic_that_is_shown(world, tmp_path):
    study = toy(world, backbone="google/t5-large-lm-adapt", dtype="bfloat16")
    # The engine's own arithmetic: 170 + 4 tokens, 0.268 TFLOP a gradient.
    assert row_flops(study, 170, 4) == pytest.approx(0.268e12, rel=0.05)
    found = Estimate({}, 174e6, None, None, None, (), {"main": Rows(1e6, 170, 4)})
    missing = tmp_path / "none.json"
    lines = list(cost_lines(study, found, "H200", file=missing))
    floor = 1e6 * row_flops(study, 170, 4) / 989e12 / 3600
    assert f"{floor:,.3g} h at the 989 TFLOP/s of its data sheet (a floor)" in lines[1]
    assert f"{floor / 0.3:,.3g} h at 30%" in lines[1]
    assert "assumed, not measured" in lines[1]
    assert "no rate is measured" in lines[2]
    (*_, last) = cost_lines(study, found, "H200", 989.0, missing)
    assert last.startswith(f"{floor:,.3g} h at 989 TFLOP/s, measured (--gpu-rate)")
    file = tmp_path / "results.json"
    file.write_text(
        '{"machine": {"device": "X", "smoke": false}, "packs": '
        '{"large R=4": {"flops": 2e14}, "large R=4, compiled": {"flops": 3e14}}}'
    )
    assert measured_rate(study, file) == (2e14, "X")
    assert measured_rate(study.model_copy(update={"compile": True}), file) == (3e14, "X")
    for other in ({"dtype": "float32"}, {"backbone": "facebook/bart-large"}, {"backbone": "gpt2-large"}):
        assert measured_rate(study.model_copy(update=other), file) is None
    file.write_text('{"machine": {"device": "X", "smoke": true}, "packs": {"large R=4": {"flops": 2e14}}}')
    assert measured_rate(study, file) is None
    single = list(cost_lines(toy(world, backbone="google/t5-large-lm-adapt"), found, file=missing))
    assert "float32" in single[1]
    assert f"{floor * 989 / 67:,.3g} h at the 67 TFLOP/s" in single[1]
    assert single[2] == lines[1]
    with pytest.raises(SoftstartError, match="the peak of GPU 'X1' is unknown"):
        list(cost_lines(study, found, "X1"))


def test_gpu_hours_of_variants_are_those_of_their_backbones_and_lengths(world, tmp_path):
    large, base = ("google/t5-large-lm-adapt", "google/t5-base-lm-adapt")
    variants = {"short": {"prompt.length": 2}, "base": {"backbone": base, "dtype": "bfloat16"}}
    methods = {"pt": {}, "maml": {}}
    study = toy(world, backbone=large, gym="no", setting="study/cls2cls", variants=variants, methods=methods)
    found = estimate(study, tmp_path, "cpu")
    assert [rows.length for rows in found.work.values()] == [132, 132, 130]  # main, base, short
    assert found.tokens == sum(rows.count * rows.length for rows in found.work.values())
    studies = variants_of(study)
    flops = {
        name: rows.count * row_flops(studies[name], rows.text, rows.output)
        for name, rows in found.work.items()
    }
    seconds = (flops["main"] + flops["short"]) / 67e12 + flops["base"] / 989e12
    lines = list(cost_lines(study, found, file=tmp_path / "none.json"))
    assert [line.split(",")[0].rpartition(" ")[2] for line in lines[:3]] == [large, base, large]
    assert f"together {sum(flops.values()):.3g} FLOPs" in lines
    assert f"float32 and bfloat16: {seconds / 3600:,.3g} h at the 67 and 989 TFLOP/s" in lines[4]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("number", range(12))
def test_predicted_peaks_are_within_15_percent_of_measured_ones(number, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    predicted, measured = importlib.import_module("benchmarks.memory.__main__").compared(number)
    assert predicted == pytest.approx(measured, rel=0.15)
