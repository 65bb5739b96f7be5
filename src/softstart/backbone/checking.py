"""Whether a model of an untested family is exact here: a few small passes of the model itself decide."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from softstart.backbone.base import Backbone
from softstart.backbone.batch import Batch, collate
from softstart.backbone.decoding import Decoding
from softstart.errors import SoftstartError
from softstart.prompt.placement import PLACEMENTS

LENGTHS = (5, 9, 2)
"""Tokens of the texts of the rows."""
OUTPUT = 3
"""Tokens of their outputs."""


def check_exact(backbone: Backbone) -> None:
    """Refuse a backbone on which a run's numbers would depend on its neighbors.

    Checked on three rows of different lengths under two prompts: the loss of each row is that of the row
    alone and that of the model's own token path; a run's loss has a gradient for its own prompt and none for
    another's; greedy generation of the batch is that of its rows.

    Raises:
        SoftstartError: naming the first thing that differs, or why the model cannot be run.
    """
    if backbone.rows_interact:  # by the placement's choice; the question here is about the model
        backbone = copy.copy(backbone)
        backbone.placement = "prefix"
    try:
        differs = _difference(backbone)
    except SoftstartError:
        raise
    except Exception as problem:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise _refused(backbone, f"cannot be run on embeddings ({reason})") from problem
    if differs:
        raise _refused(backbone, f"is not exact here: {differs}")


def _refused(backbone: Backbone, reason: str) -> SoftstartError:
    kind = backbone.model.config.model_type
    return SoftstartError(
        f"backbone '{backbone.name}' of the family '{kind}' {reason}",
        fix="Use a model type of a family in softstart.backbone.FAMILIES.",
    )


def _difference(backbone: Backbone) -> str | None:
    generator = torch.Generator().manual_seed(0)
    vocabulary = backbone.embedding.weight.shape[0]
    special = set(backbone.tokenizer.all_special_ids)
    ordinary = torch.tensor([i for i in range(min(vocabulary, 1000)) if i not in special])

    def ids(count: int) -> list[int]:
        chosen = torch.randint(len(ordinary), (count,), generator=generator)
        return [int(i) for i in ordinary[chosen]]

    texts, outputs = [ids(n) for n in LENGTHS], [ids(OUTPUT) for _ in LENGTHS]
    pad = backbone.tokenizer.pad_token_id
    batch = collate(texts, outputs, [0, 1, 0], pad=pad).to(backbone.device)
    words = torch.tensor([ids(2), ids(2)], device=backbone.device)
    prompts = backbone.embedding(words).detach().to(backbone.prompt_dtype)
    alone = [_row(batch, b) for b in range(len(batch))]

    sums = backbone.nll(prompts, batch)[0]
    for b, row in enumerate(alone):
        if not _close(sums[b], backbone.nll(prompts, row)[0][0], backbone):
            return "a row's loss changes with its neighbors"
    # Under a prompt that is the embedding of two words, the model must do what it does with these words.
    with_words = _with_words(backbone, words, batch)
    as_text = backbone.nll(prompts[:1, :0], with_words)[0]
    if not _close(sums, as_text, backbone):
        return "a prompt of word embeddings does not do what the words do"
    if not _close(as_text, _token_path(backbone, with_words), backbone):
        return "embeddings given from outside do not do what the tokens do"
    leaf = prompts.clone().requires_grad_()
    loss = backbone.nll(leaf, batch)[0][batch.run == 0].sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    if not bool(gradient[0].abs().max() > 0) or bool(gradient[1].abs().max() > 0):
        return "the gradient of a loss does not reach its own prompt alone"
    try:
        leaf = prompts.clone().requires_grad_()
        twice = backbone.nll(leaf, batch, twice=True)[0].sum()
        (gradient,) = torch.autograd.grad(twice, leaf, create_graph=True)
        (product,) = torch.autograd.grad(gradient.square().sum(), leaf)
    except (RuntimeError, NotImplementedError):
        return "its loss cannot be differentiated twice"
    if not bool(product.isfinite().all()):
        return "its second derivative is not finite"
    if _half(backbone):  # where rounding alone decides between two likely words
        return None
    decoding = Decoding(max_new_tokens=3)
    if backbone.generate(prompts, batch, decoding) != [
        backbone.generate(prompts, row, decoding)[0] for row in alone
    ]:
        return "what is generated for a row changes with its neighbors"
    return None


def _with_words(backbone: Backbone, words: Tensor, batch: Batch) -> Batch:
    """The rows with words [R, P] in their texts, at the place where the prompts of a batch would go."""
    # To a placement, token ids are embeddings of width 1.
    prompts, text = words[batch.run][..., None], batch.input_ids[..., None]
    ids, mask = PLACEMENTS.find(backbone.placement).join(prompts, text, batch.attention_mask)
    return replace(batch, input_ids=ids[..., 0], attention_mask=mask, run=torch.zeros_like(batch.run))


def _row(batch: Batch, b: int) -> Batch:
    return batch.select(torch.tensor([b], device=batch.run.device))


@torch.no_grad()
def _token_path(backbone: Backbone, batch: Batch) -> Tensor:
    """Losses [B] by the model's ordinary call on token ids, one row at a time."""
    model, losses = backbone.model, []
    for b in range(len(batch)):
        row = _row(batch, b)
        if model.config.is_encoder_decoder:
            loss = model(input_ids=row.input_ids, labels=row.labels).loss
        else:
            text = row.input_ids.shape[1]
            ids = torch.cat((row.input_ids, row.labels), 1)
            labels = ids.clone()
            labels[:, :text] = -100
            loss = model(input_ids=ids, labels=labels).loss
        losses.append(loss * OUTPUT)
    return torch.stack(losses)


def _close(a: Tensor, b: Tensor, backbone: Backbone) -> bool:
    tolerance = 0.1 if _half(backbone) else 1e-3
    return bool(torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance))


def _half(backbone: Backbone) -> bool:
    return backbone.embedding.weight.dtype in (torch.bfloat16, torch.float16)
