"""What makes large backbones fit changes no number: recomputed layers and spread layers."""

from __future__ import annotations

import pytest
import torch

from helpers.families import random_backbone
from helpers.models import SavedBytes, prompts, random_batch, random_t5, relative
from softstart.algorithms import MAML, Episodes
from softstart.backbone.loading import recompute_layers
from softstart.errors import SoftstartError
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps
from softstart.training.objective import PromptObjective

LENGTHS = [(5, 2, 0), (9, 3, 1), (1, 1, 2), (7, 4, 1)]
NAMES = ["t5", "bart", "llama", "gpt2"]


def made(name):
    """A backbone that runs transformers' own layers, in float64."""
    backbone = random_t5() if name == "t5" else random_backbone(name)
    if name == "t5":
        backbone.lean = False
    return backbone


def meta_gradient(backbone, budget):
    stack = prompts(backbone, runs=3)
    support = [random_batch([(5, 2, 0), (9, 3, 1), (3, 1, 2)], seed=k) for k in range(2)]
    episodes = Episodes(3, support, random_batch(LENGTHS, seed=9))
    loss = PromptObjective(backbone, None, budget)
    return MAML(inner_lr=0.3, inner_steps=2).meta_gradient(loss, stack[0], episodes)[0]


@pytest.mark.parametrize("name", NAMES)
def test_recomputed_layers_give_the_second_order_exactly(exact_norm, name):
    plain, lean = made(name), made(name)
    plain.read_once = False  # as the other one, whose layers are computed again
    recompute_layers(lean.model)
    stack, batch = prompts(plain, runs=3), random_batch(LENGTHS)
    vectors = torch.randn_like(stack, generator=None)
    products, kept = [], []
    for backbone in (plain, lean):
        with SavedBytes() as saved:
            products.append(run_hvps(backbone, stack, batch, vectors))
        kept.append(saved.peak)
        assert (
            relative(run_gradients(backbone, stack, batch)[1], run_gradients(plain, stack, batch)[1]) < 1e-12
        )
    assert relative(products[1], products[0]) < 1e-12
    assert products[0].abs().max() > 1e-4
    for budget in (0, None, 1 << 40):
        assert relative(meta_gradient(lean, budget), meta_gradient(plain, 0)) < 1e-12


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["spread", "offloaded"])
def test_layers_spread_by_accelerate_give_the_second_order_exactly(exact_norm, name, how):
    """Its hooks move tensors between devices; here both are one, for there is no second."""
    accelerate = pytest.importorskip("accelerate")
    plain, spread = made(name), made(name)
    if how == "spread":
        top = (spread.model.named_children(), spread.model.named_buffers(recurse=False))
        places = {name: "cpu" for names in top for name, _ in names}
        accelerate.dispatch_model(spread.model, places, main_device="cpu", force_hooks=True)
    else:
        accelerate.cpu_offload(spread.model, execution_device=torch.device("cpu"))
    assert sum(hasattr(module, "_hf_hook") for module in spread.model.modules()) > 1
    stack, batch = prompts(plain, runs=3), random_batch(LENGTHS)
    vectors = torch.ones_like(stack)
    assert relative(run_gradients(spread, stack, batch)[1], run_gradients(plain, stack, batch)[1]) < 1e-12
    assert relative(run_hvps(spread, stack, batch, vectors), run_hvps(plain, stack, batch, vectors)) < 1e-12
    assert relative(meta_gradient(spread, None), meta_gradient(plain, None)) < 1e-12


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", NAMES)
def test_layers_on_two_gpus_give_the_second_order_exactly(exact_norm, name):
    accelerate = pytest.importorskip("accelerate")
    plain, spread = made(name), made(name)
    sizes = {0: 1 << 14, 1: 1 << 30}
    places = accelerate.infer_auto_device_map(spread.model, sizes, spread.model._no_split_modules)
    accelerate.dispatch_model(spread.model, places, main_device=0)
    assert len(set(places.values())) == 2
    expected = meta_gradient(plain, None)
    stack, batch = prompts(plain, runs=3), random_batch(LENGTHS)
    place = spread.device
    got = run_gradients(spread, stack.to(place), batch.to(place))[1].cpu()
    assert relative(got, run_gradients(plain, stack, batch)[1]) < 1e-10
    assert expected.isfinite().all()


def test_sharded_models_are_refused():
    class FullyShardedDataParallel(torch.nn.Module):
        pass

    backbone = random_t5()
    backbone.model.encoder.final_layer_norm = FullyShardedDataParallel()
    with pytest.raises(SoftstartError, match="sharded by FSDP"):
        type(backbone)(backbone.model, backbone.tokenizer)
