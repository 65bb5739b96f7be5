"""Every listed family: rows do not interact, transformers and PEFT compute the same, twice differentiable."""

from __future__ import annotations

import peft
import pytest
import torch
import transformers

from helpers.families import BROKEN, CAUSAL, FAMILY, UNLISTED, random_backbone, random_model
from helpers.models import prompts, random_batch, relative
from softstart.backbone import FAMILIES, IGNORE, Decoding, candidates_tensor
from softstart.backbone.checking import check_exact
from softstart.backbone.loading import recompute_layers
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.training.gradients import run_gradients
from softstart.training.hessian_products import run_hvps

# These keep the softmax or the norm in float32 whatever the model's dtype.
EXACT = 1e-5
LENGTHS = [(5, 2, 0), (9, 3, 1), (1, 1, 3), (7, 4, 1)]


def test_every_listed_family_is_tested():
    listed = {kind for family in FAMILIES.values() for kind in family.model_types}
    assert listed == {*FAMILY, "t5"}


def _by_hand(backbone, stack, row, run):
    """The loss of one row by transformers' own loss on embeddings joined by hand."""
    text = backbone.embedding(row.input_ids)
    own = stack[run : run + 1].to(text.dtype)
    parts = [own, text] if backbone.placement == "prefix" else [text, own]
    if backbone.model.config.is_encoder_decoder:
        return backbone.model(inputs_embeds=torch.cat(parts, 1), labels=row.labels).loss
    joined = torch.cat([*parts, backbone.embedding(row.labels)], 1)
    labels = torch.cat((torch.full((1, joined.shape[1] - row.labels.shape[1]), IGNORE), row.labels), 1)
    return backbone.model(inputs_embeds=joined, labels=labels).loss


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("placement", ["prefix", "suffix"])
def test_stacked_losses_are_transformers_own_of_each_row_alone(name, placement):
    backbone = random_backbone(name, placement=placement)
    stack, batch = prompts(backbone), random_batch(LENGTHS)
    sums, counts = backbone.nll(stack, batch)
    for b, (_, outputs, run) in enumerate(LENGTHS):
        row = batch.select(torch.tensor([b]))
        assert counts[b] == outputs
        assert relative(sums[b] / counts[b], _by_hand(backbone, stack, row, run)) < EXACT


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_of_a_pack_is_that_of_each_prompt_alone(name, beams):
    # float32: transformers' eager attention turns masks of float64 models into NaN.
    backbone = random_backbone(name, torch.float32)
    stack = prompts(backbone, scale=2.0)
    batch = random_batch([(n % 11 + 1, 2, n % 4) for n in range(9)])
    decoding = Decoding(num_beams=beams, max_new_tokens=6)
    packed = backbone.generate(stack, batch, decoding, max_tokens=40)
    alone = []
    for b in range(len(batch)):
        row = batch.select(torch.tensor([b]))
        joined = torch.cat((stack[row.run], backbone.embedding(row.input_ids)), 1)
        ids = backbone.model.generate(
            inputs_embeds=joined, attention_mask=torch.ones(joined.shape[:2], dtype=torch.long),
            num_beams=beams, max_new_tokens=6, do_sample=False, early_stopping=beams > 1,
        )  # fmt: skip
        alone.append(backbone.tokenizer.decode(ids[0], skip_special_tokens=True))
    assert packed == alone
    assert len(set(packed)) > 2


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ranking_is_the_loss_of_each_candidate(name, dtype):
    backbone = random_backbone(name, dtype)
    stack, batch = prompts(backbone), random_batch([(4, 1, 0), (9, 1, 1), (2, 1, 3)])
    choices = [[[5, 6], [7], [8, 9, 10]], [[11], [12]], [[13, 14], [15], []]]
    scores = backbone.rank(stack, batch, candidates_tensor(choices, IGNORE), max_tokens=20)
    for b, row in enumerate(choices):
        assert scores[b, len([c for c in row if c]) :].eq(-torch.inf).all()
        for c, ids in enumerate(filter(None, row)):
            single = batch.select(torch.tensor([b]))
            single = type(single)(single.input_ids, single.attention_mask, torch.tensor([ids]), single.run)
            assert relative(scores[b, c], -backbone.nll(stack, single)[0][0]) < EXACT


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("recompute", [False, True])
def test_second_order_is_the_difference_of_gradients(name, recompute):
    backbone = random_backbone(name)
    stack, batch = prompts(backbone), random_batch(LENGTHS)
    plain = run_gradients(backbone, stack, batch)[1]
    if recompute:
        recompute_layers(backbone.model)
        assert relative(run_gradients(backbone, stack, batch)[1], plain) < EXACT
    vectors = torch.randn_like(stack)
    product, step = run_hvps(backbone, stack, batch, vectors), 1e-4
    ahead, behind = (run_gradients(backbone, stack + s * step * vectors, batch)[1] for s in (1, -1))
    assert product.abs().max() > 1e-4
    assert relative(product, (ahead - behind) / (2 * step)) < 0.02


@pytest.mark.parametrize("name", FAMILY)
def test_peft_computes_the_same_loss_and_the_same_beams(name, tmp_path):
    backbone = random_backbone(name, torch.float32)
    stack, batch = prompts(backbone, runs=1), random_batch([(6, 3, 0)])
    SoftPrompt.of(backbone, stack[0]).save_pretrained(tmp_path)
    model = peft.PeftModel.from_pretrained(random_model(name, torch.float32), str(tmp_path)).eval()
    model.base_model.generation_config = backbone.model.generation_config
    sums, counts = backbone.nll(stack, batch)
    ids, labels = batch.input_ids, batch.labels
    if name in CAUSAL:
        ids = torch.cat((ids, labels), 1)
        labels = torch.cat((torch.full_like(batch.input_ids, IGNORE), labels), 1)
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
    assert abs(sums[0] / counts[0] - theirs) < 1e-6 * theirs
    for beams in (1, 4):
        written = model.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, num_beams=beams, do_sample=False,
            max_new_tokens=6, early_stopping=beams > 1,
        )  # fmt: skip
        if name in CAUSAL:
            written = written[:, batch.input_ids.shape[1] :]
        (ours,) = backbone.generate(stack, batch, Decoding(num_beams=beams, max_new_tokens=6))
        assert backbone.tokenizer.decode(written[0], skip_special_tokens=True) == ours


@pytest.mark.parametrize("name", ["gpt2", "gemma3_text", "bart"])
def test_what_a_checkpoint_says_about_generation_is_dropped_but_for_tokens(name):
    model = random_model(name, torch.float32)
    model.generation_config = transformers.GenerationConfig(
        do_sample=True, temperature=0.3, min_length=20, no_repeat_ngram_size=2, repetition_penalty=1.7,
        num_beams=3, eos_token_id=[1, 9], bos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    plain = random_backbone(name, torch.float32)
    loud = type(plain)(model, plain.tokenizer, name=name)
    stack, batch = prompts(plain, scale=2.0), random_batch([(n + 1, 2, n % 4) for n in range(6)])
    decoding = Decoding(max_new_tokens=12)
    plain.model.generation_config.eos_token_id = [1, 9]
    assert loud.generate(stack, batch, decoding) == plain.generate(stack, batch, decoding)


@pytest.mark.parametrize("name", [*FAMILY, *UNLISTED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_of_unlisted_families_passes_where_it_should(name, dtype):
    check_exact(random_backbone(name, dtype))


@pytest.mark.parametrize(("name", "reason"), [
    # Either is true of it, and the first is within rounding of the check's tolerance.
    ("xlnet", "is not exact here: (a row's loss changes|embeddings given from outside do not do what)"),
    ("ctrl", "cannot be run on embeddings"),
])  # fmt: skip
def test_the_check_refuses_what_is_not_exact(name, reason):
    assert name in BROKEN
    with pytest.raises(SoftstartError, match=f"of the family '{name}' {reason}"):
        check_exact(random_backbone(name, torch.float32))


def test_scaled_embeddings_are_what_prompts_start_from():
    gemma = random_backbone("gemma3_text")
    assert torch.allclose(gemma.vocabulary, gemma.embedding.weight * 4.0)
    plain = random_backbone("gpt2")
    assert torch.equal(plain.vocabulary, plain.embedding.weight)


def test_what_does_not_fit_the_window_is_refused():
    backbone = random_backbone("gpt2")
    stack = prompts(backbone)
    with pytest.raises(SoftstartError, match=r"67 tokens .* but 'gpt2' reads at most 64"):
        backbone.nll(stack, random_batch([(5, 2, 0), (64, 4, 1)]))
    with pytest.raises(SoftstartError, match="reads at most 64"):
        backbone.generate(stack, random_batch([(40, 2, 0)]), Decoding(max_new_tokens=32))
    with pytest.raises(SoftstartError, match="neither prompt nor text"):
        backbone.nll(stack[:, :0], random_batch([(0, 2, 0), (5, 2, 0)]))
