"""Key-value prompts: what they compute, their derivatives, packs, files, and PEFT's prefix tuning."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import peft
import pytest
import torch
from safetensors.torch import save_file

from helpers.episodes import SMALL, episodes, unrolled
from helpers.families import CAUSAL, exact_norms, exact_softmax, random_backbone, random_model
from helpers.models import (
    prompts,
    random_batch,
    random_t5,
    relative,
    toy_encoded,
    toy_task,
    word_tokenizer,
)
from helpers.own_tables import softstart
from helpers.toy_study import make_world, toy
from softstart.algorithms import MAML, FoMAML, Reptile
from softstart.backbone import Decoding
from softstart.errors import SoftstartError
from softstart.prompt import CONFIG_FILE, TENSOR, WEIGHTS_FILE, KeyValues, SoftPrompt
from softstart.storage.tensors import load_tensors
from softstart.study import run_study
from softstart.study.cost.memory_needs import study_needs
from softstart.study.plan.inputs import Inputs
from softstart.training.configs import MetaConfig, PromptSpec
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps
from softstart.training.identity import identity_of
from softstart.training.methods import learn
from softstart.training.objective import PromptObjective
from softstart.training.rates import scaled_rates

EXACT = 1e-10
LENGTHS = [(4, 2, 0), (7, 1, 1), (2, 3, 2), (6, 2, 1), (3, 1, 0), (9, 3, 2)]


@pytest.fixture(autouse=True)
def _softmax_of_its_own_precision(monkeypatch):
    exact_softmax(monkeypatch)


def both_kinds(name, dtype=torch.float64, runs=3):
    """The same weights for each kind, and prompts of each that compute the same."""
    soft, keyed = (random_backbone(name, dtype) for _ in range(2))
    for backbone in (soft, keyed):
        exact_norms(backbone.model)
    keyed.prompt_kind = "key_values"
    stack = prompts(soft, runs=runs)
    return soft, keyed, stack, keyed.kind.made_of(stack, keyed).to(keyed.prompt_dtype)


@pytest.mark.parametrize("name", CAUSAL)
def test_keys_and_values_of_embeddings_compute_what_these_compute(name):
    soft, keyed, stack, rows = both_kinds(name)
    batch = random_batch(LENGTHS)
    layers, heads, width = dataclasses.astuple(keyed.kind)
    assert rows.shape == (3, stack.shape[1], layers * 2 * heads * width)
    assert relative(keyed.nll(rows, batch)[0], soft.nll(stack, batch)[0]) < EXACT
    candidates = torch.randint(3, 60, (len(batch), 4, 3), generator=torch.Generator().manual_seed(0))
    assert relative(keyed.rank(rows, batch, candidates), soft.rank(stack, batch, candidates)) < EXACT
    for decoding in (Decoding(max_new_tokens=5), Decoding(num_beams=3, max_new_tokens=5)):
        assert keyed.generate(rows, batch, decoding) == soft.generate(stack, batch, decoding)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_derivatives_are_those_of_autograd_on_a_cache_that_transformers_reads(name):
    _, keyed, _, rows = both_kinds(name)
    batch, vectors = random_batch(LENGTHS), torch.randn(rows.shape, dtype=rows.dtype)
    leaf = rows.clone().requires_grad_()
    losses = torch.stack([reference_loss(keyed, leaf[run], batch, run) for run in range(3)])
    (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
    (product,) = torch.autograd.grad((gradient * vectors).sum(), leaf)
    for bound in (None, 24):
        got, slopes = run_gradients(keyed, rows, batch, bound)
        assert relative(got, losses.detach()) < EXACT
        assert relative(slopes, gradient.detach()) < EXACT
        assert relative(run_hvps(keyed, rows, batch, vectors, bound), product) < EXACT


def reference_loss(backbone, prompt, batch, run):
    """The token mean of a run's labels by transformers' own cache, row by row; it knows nothing of packs."""
    from transformers import DynamicCache

    layers, heads, width = dataclasses.astuple(backbone.kind)
    cut = prompt.view(len(prompt), layers, 2, heads, width).permute(1, 2, 3, 0, 4)[:, :, None]
    total, count = torch.zeros((), dtype=prompt.dtype), 0
    for row in (batch.run == run).nonzero().flatten().tolist():
        text = batch.input_ids[row, : int(batch.attention_mask[row].sum())]
        labels = batch.labels[row][batch.labels[row] >= 0]
        cache = DynamicCache(config=backbone.model.config)
        for layer in range(layers):
            cache.update(cut[layer, 0], cut[layer, 1], layer)
        backbone.model.set_attn_implementation("eager")
        ids = torch.cat((text, labels[:-1]))[None]
        # Without a mask transformers takes positions and causality from the cache.
        logits = backbone.model(input_ids=ids, past_key_values=cache).logits[0, len(text) - 1 :]
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        count += len(labels)
    return total / count


def test_a_pack_is_every_run_alone():
    _, keyed, _, rows = both_kinds("llama")
    batch = random_batch(LENGTHS)
    losses, slopes = run_gradients(keyed, rows, batch)
    for run in range(3):
        mine = batch.select((batch.run == run).nonzero().flatten())
        alone = run_gradients(keyed, rows[run : run + 1], dataclasses.replace(mine, run=mine.run * 0))
        assert relative(losses[run], alone[0][0]) < EXACT
        assert relative(slopes[run], alone[1][0]) < EXACT


@pytest.mark.parametrize("name", CAUSAL)
def test_peft_loads_it_as_prefix_tuning_and_computes_the_same_loss(name, tmp_path):
    """Also where positions begin: behind the virtual tokens."""
    _, keyed, _, rows = both_kinds(name, runs=1)
    SoftPrompt.of(keyed, rows[0], {"task": "toy"}).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "# A key-value prompt (prefix tuning): toy" in card
    assert f"of 3 virtual tokens: {rows.numel()} entries, placed as prefix" in card
    stored = SoftPrompt.from_pretrained(tmp_path).check_for(keyed)[None].double()
    model = peft.PeftModel.from_pretrained(random_model(name), str(tmp_path)).eval()
    exact_norms(model)
    config = model.active_peft_config
    assert (config.peft_type, config.task_type) == ("PREFIX_TUNING", "CAUSAL_LM")
    batch = random_batch([(4, 2, 0), (7, 1, 0), (2, 3, 0)])
    assert relative(keyed.nll(stored, batch)[0], losses_in_peft(model, batch)) < 1e-6


def losses_in_peft(model, batch):
    """The sums of the labels' losses [B], row by row."""
    sums = []
    for row in range(len(batch)):
        text = batch.input_ids[row, : int(batch.attention_mask[row].sum())]
        labels = batch.labels[row][batch.labels[row] >= 0]
        ids = torch.cat((text, labels))[None]
        wanted = torch.cat((torch.full_like(text, -100), labels))[None]
        with torch.no_grad():
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=wanted).loss
        sums.append(loss * len(labels))
    return torch.stack(sums)


@pytest.mark.parametrize("projection", [False, True])
def test_adapters_that_peft_wrote_are_read_and_give_its_loss(projection, tmp_path):
    """PEFT saves what its network makes of a projected prefix, not the network."""
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=projection, encoder_hidden_size=5,
        base_model_name_or_path="some/model",
    )  # fmt: skip
    model = peft.get_peft_model(random_model("llama"), config).eval()
    model.save_pretrained(tmp_path)
    exact_norms(model)
    prompt = SoftPrompt.from_pretrained(tmp_path)
    assert prompt.kind == KeyValues(layers=2, heads=1, head_width=8)
    assert prompt.tensor.shape == (3, 32)
    _, keyed, _, _ = both_kinds("llama")
    batch = random_batch([(4, 2, 0), (7, 1, 0)])
    ours = keyed.nll(prompt.tensor[None].double(), batch)[0]
    assert relative(ours, losses_in_peft(model, batch)) < 1e-6


def test_an_adapter_whose_configuration_is_not_its_own_is_refused_in_a_line(tmp_path):
    _, keyed, _, rows = both_kinds("llama", runs=1)
    SoftPrompt.of(keyed, rows[0]).save_pretrained(tmp_path)
    tensors, _ = load_tensors(tmp_path / WEIGHTS_FILE)
    save_file({TENSOR: tensors[TENSOR]}, tmp_path / WEIGHTS_FILE)  # as PEFT writes it
    good = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert SoftPrompt.load(tmp_path).kind == keyed.kind
    for change in (
        {"num_layers": 5},
        {"num_layers": None},
        {"num_attention_heads": 0},
        {"token_dim": "wide"},
    ):
        (tmp_path / CONFIG_FILE).write_text(json.dumps(good | change))
        with pytest.raises(SoftstartError, match=r"adapter_config\.json: does not fit the prompt next to it"):
            SoftPrompt.load(tmp_path)


def test_every_algorithm_learns_a_key_value_start():
    _, keyed, _, rows = both_kinds("gpt2", runs=1)
    for name, algorithm in SMALL.items():
        config = MetaConfig(steps=2, lr=0.1, meta_batch=2, lr_unit="embedding")
        learned = learn(keyed, algorithm, [toy_encoded(keyed)], rows[0], config)
        assert learned.prompt.shape == rows[0].shape, name
        assert (learned.prompt != rows[0]).any(1).all(), name


@pytest.mark.parametrize("steps", [1, 3])
def test_maml_is_exact_on_keys_and_values(steps):
    """Against autograd through the unrolled inner loop; first-order MAML and Reptile by their definitions."""
    _, keyed, _, rows = both_kinds("llama", runs=1)
    theta, drawn, lr = rows[0].clone().requires_grad_(), episodes(steps), 0.3
    path, query = unrolled(keyed, theta, drawn, lr)
    (exact,) = torch.autograd.grad(query.mean(), theta, retain_graph=True)
    (last,) = torch.autograd.grad(query.sum(), path)
    given = (PromptObjective(keyed), rows[0], drawn)
    assert relative(MAML(inner_lr=lr, inner_steps=steps).meta_gradient(*given)[0], exact) < EXACT
    first, _ = FoMAML(inner_lr=lr, inner_steps=steps).meta_gradient(*given)
    assert relative(first, last.mean(0)) < EXACT
    assert relative(first, exact) > 1e-4  # second order matters here
    reptile, _ = Reptile(inner_lr=lr, inner_steps=steps).meta_gradient(*given)
    assert relative(reptile, ((theta - path) / lr).mean(0).detach()) < EXACT


def test_a_rate_in_units_moves_each_layer_by_the_size_of_its_own_entries():
    _, keyed, _, rows = both_kinds("gpt2", runs=1)
    unit = scaled_rates(keyed, "embedding", torch.tensor([0.5], dtype=torch.float64))
    keys = keyed.kind.made_of(keyed.vocabulary[torch.arange(3, 60)][None], keyed)[0]
    assert unit.shape == (1, 1, rows.shape[2])
    assert unit.unique().numel() == 2 * keyed.kind.layers
    sizes = keys.view(len(keys), 4, -1).square().mean((0, 2)).sqrt()
    assert torch.allclose(unit.view(4, -1)[:, 0], 0.5 * sizes, rtol=0.5)
    rates = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    assert torch.equal(scaled_rates(keyed, "absolute", rates), rates)
    assert torch.allclose(scaled_rates(keyed, "embedding", rates), 2 * unit * rates[..., None])


def test_work_counts_no_token_for_a_prompt_that_is_not_read():
    soft, keyed, _, _ = both_kinds("llama")
    batch = random_batch(LENGTHS)
    rows = [(4 + 2), (7 + 1), (2 + 3), (6 + 2), (3 + 1), (9 + 3)]
    for counted in (keyed.whole_rows(batch, 3), keyed.computed_rows(batch, 3)):
        assert [tokens for tokens, _ in counted] == rows
        for (text, output, _), (_, flops) in zip(LENGTHS, counted, strict=True):
            assert flops == keyed.row_flops(text, output, before=3)
    assert sum(f.forward for _, f in keyed.whole_rows(batch, 3)) < sum(
        f.forward for _, f in soft.computed_rows(batch, 3)
    )


@pytest.mark.parametrize(
    ("do", "line"),
    [
        (
            lambda b: setattr(random_t5(), "prompt_kind", "key_values"),
            "random-t5' takes no key-value prompts: in",
        ),
        (
            lambda b: setattr(random_backbone("bloom"), "prompt_kind", "key_values"),
            "it reads rows as a whole",
        ),
        (lambda b: setattr(b, "placement", "suffix"), "a key-value prompt has no place 'suffix'"),
        (lambda b: setattr(b, "prompt_kind", "keys"), "unknown prompt kind 'keys'. Use one of embeddings"),
        (
            lambda b: b.nll(torch.zeros(1, 2, 16), random_batch([(3, 1, 0)])),
            "takes keys and values [2, 2, 2, 8]",
        ),
        (
            lambda b: b.nll(torch.zeros(1, 2, 64), random_batch([(3, 1, 0)]), seed=1),
            "cannot be used under dropout",
        ),
        (lambda b: b.nll(torch.zeros(1, 2, 64), random_batch([(0, 1, 0)])), "cannot be used without a text"),
        (lambda b: SoftPrompt(torch.zeros(2, 16)).check_for(b), "holds embeddings but is used as key_values"),
        (
            lambda b: SoftPrompt(torch.zeros(2, 32), kind=KeyValues(1, 2, 8)).check_for(b),
            "has keys and values [1, 2, 2, 8] but backbone 'gpt2' takes keys and values [2, 2, 2, 8]",
        ),
        (lambda b: PromptSpec(kind="key_values", placement="suffix"), "has no place 'suffix'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(do, line):
    backbone = random_backbone("gpt2", torch.float32)
    backbone.prompt_kind = "key_values"
    with pytest.raises((SoftstartError, ValueError), match=re.escape(line)):
        do(backbone)
    backbone.nll(torch.zeros(1, 0, 16), random_batch([(3, 1, 0)]))  # without a prompt


def test_keys_of_old_results_stay():
    assert "kind" not in identity_of(PromptSpec())
    assert identity_of(PromptSpec(kind="key_values"))["kind"] == "key_values"
    old = {k: v for k, v in json.loads(Inputs("d", 16, ()).to_json()).items() if k != "kind"}
    assert Inputs.from_json(json.dumps(old)) == Inputs("d", 16, ())


@pytest.fixture(scope="module")
def causal_world(tmp_path_factory):
    """A gym of toy tasks and a random causal model."""
    here = make_world(tmp_path_factory.mktemp("causal"))
    shutil.rmtree(here / "model")
    random_model("llama", torch.float32, max_position_embeddings=256).save_pretrained(here / "model")
    word_tokenizer().save_pretrained(here / "model")
    return here


@pytest.mark.slow
def test_a_study_compares_both_kinds(causal_world, tmp_path):
    changes = {
        "setting": {"source": ["toy-a"], "target": ["toy-c"]}, "samples": [13], "learning_rates": [0.2],
        "methods": {"pt": {}, "maml": {"inner_lr": 0.1}}, "meta": {"steps": 2, "lr": 0.3},
        "adaptation": {"steps": 2, "eval_every": 2, "eval_start": False, "lr_unit": "embedding"},
        "variants": {"keys": {"prompt.kind": "key_values"}},
    }  # fmt: skip
    study = toy(causal_world, **changes)
    outcome = run_study(study, tmp_path / "out", device="cpu")
    assert not outcome.failures
    files = [SoftPrompt.load(file) for file in (tmp_path / "out" / "prompts").iterdir()]
    assert {(p.kind.name, tuple(p.tensor.shape)) for p in files} == {
        ("embeddings", (4, 16)), ("key_values", (4, 2 * 2 * 8)),
    }  # fmt: skip
    assert len(files) == 2 * (2 + 1)
    sizes = {tuple(row) for row in outcome.footing[["variant", "trained", "stored"]].itertuples(index=False)}
    assert sizes == {("main", 64, 256), ("keys", 128, 512)}
    work = outcome.footing.set_index(["method", "variant"])["run_flops"]
    assert work["pt", "keys"] < work["pt", "main"]
    needs = study_needs(study)
    assert any(peak.name == "meta-training maml" for peak in needs.peaks)
    with pytest.raises(SoftstartError, match="prompts of kind key_values are trained without dropout"):
        toy(causal_world, prompt={"kind": "key_values"}, adaptation={"dropout": True})


def test_commands_take_both_kinds(causal_world, tmp_path):
    for name in ("mine", "a", "b"):
        lines = [f"{row.input},{row.outputs[0]}" for row in toy_task(name).samples[13].train * 3]
        folder = tmp_path / ("sources" if name != "mine" else ".")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.csv").write_text("\n".join(["input,label", *lines]) + "\n")
    model = ("--backbone", causal_world / "model", "--device", "cpu")
    quick = ("--train", "mine.csv", "--steps", 3, "--splits", 1, "--device", "cpu")

    def run(*arguments):
        code, out, err = softstart(*arguments, cwd=tmp_path)
        assert code == 0, err
        return out

    def kind(name):
        return SoftPrompt.from_pretrained(tmp_path / name).kind.name

    run("meta-train", "sources", "--out", "soft", "--length", 3, "--steps", 2, *model)
    run(
        "meta-train",
        "sources",
        "--out",
        "keys",
        "--init",
        "soft",
        "--kind",
        "key_values",
        "--steps",
        2,
        *model,
    )
    run("adapt", "--init", "keys", "--out", "tuned", *quick)
    run("adapt", "--init", "soft", "--kind", "key_values", "--out", "turned", *quick)
    run("adapt", "--init", "demonstrations", "--kind", "key_values", "--out", "shown", *quick, *model[:2])
    assert [kind(n) for n in ("soft", "keys", "tuned", "turned", "shown")] == ["embeddings"] + [
        "key_values"
    ] * 4
    assert "on 24 rows" in run("evaluate", "tuned", "--rows", "mine.csv")
    run("predict", "tuned", "--rows", "mine.csv", "--out", "answers.csv")
    run("export", "tuned", "adapter")
    assert torch.equal(*(SoftPrompt.from_pretrained(tmp_path / n).tensor for n in ("tuned", "adapter")))
    assert "keys and values [2, 2, 1, 8]" in run("inspect", "tuned", "--before", "keys")
    code, _, err = softstart("adapt", "--init", "keys", "--kind", "embeddings", *quick, cwd=tmp_path)
    assert code == 1
    assert (
        "keys: the prompt holds key_values but is used as embeddings. Set kind: key_values (in Python" in err
    )
    code, _, err = softstart("adapt", "--kind", "key_values", *quick, cwd=tmp_path)
    assert "backbone 'softstart/tiny' takes no key-value prompts" in err
