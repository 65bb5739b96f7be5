"""The engine's promises on a real language model: SmolLM2-135M-Instruct.

Run with ``pytest -m real -n 0``. Its weights are rounded to 4 bits; every comparison is on the same weights.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections import Counter

import peft
import pytest
import torch
from transformers.models.llama import modeling_llama

from helpers.models import relative
from helpers.paths import ROOT
from helpers.shared import SHARED
from softstart import (
    AdaptConfig,
    AdaptRun,
    Backbone,
    Evaluation,
    Job,
    TextFormat,
    adapt,
    encode_task,
    evaluate,
)
from softstart.algorithms import MAML
from softstart.algorithms.base import Episodes
from softstart.backbone import Batch, Decoding, candidates_tensor, collate
from softstart.backbone.sources.converted import read_gguf
from softstart.gym import open_gym
from softstart.gym.metrics import score
from softstart.prompt import SoftPrompt, frequent_words
from softstart.training.configs import PromptSpec
from softstart.training.encoding import encode_texts
from softstart.training.objective import PromptObjective
from softstart.training.optimizers import AdamW
from softstart.training.starts import draw_start, of_kind

pytestmark = pytest.mark.real

TEXTS = ["a gripping and original film .", "dull", "the plot makes no sense and the actors know it , sadly ."]
WORDS = [" great", " terrible", " terrible"]


@pytest.fixture(scope="module")
def prompts(smollm2):
    """Two prompts of frequent words [2, 4, d]."""
    return torch.stack([draw_start(smollm2, PromptSpec(length=4, frequent="words"), (), s) for s in (0, 1)])


@pytest.fixture(scope="module")
def batch(smollm2):
    """Three reviews of different lengths, under the first, the second and the first prompt."""
    inputs = encode_texts(smollm2, [f"{text}\nIt was" for text in TEXTS], None)
    outputs = encode_texts(smollm2, [word.strip() for word in WORDS], 9, outputs=True)
    return collate(inputs, outputs, [0, 1, 0], pad=smollm2.tokenizer.pad_token_id)


def alone(batch: Batch, b: int) -> Batch:
    row = batch.select(torch.tensor([b]))
    length = int(row.attention_mask.sum())
    return collate([row.input_ids[0, :length].tolist()], [row.labels[0].tolist()], [int(row.run)], pad=0)


@pytest.fixture(scope="module")
def with_peft(smollm2, prompts):
    """The model in PEFT, with the first prompt."""
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(copy.deepcopy(smollm2.model), config).eval()
    model.prompt_encoder["default"].embedding.weight.data = prompts[0].clone()
    return model


def test_it_answers(smollm2):
    texts = encode_texts(smollm2, ["The capital of France is"], None)
    batch = collate(texts, [[2]], [0], pad=2)
    (answer,) = smollm2.generate(torch.zeros(1, 0, smollm2.width), batch, Decoding(max_new_tokens=2))
    assert answer.startswith(" Paris")


def test_by_name_and_by_gguf_path_it_is_the_same_network(smollm2, gguf):
    """Read from the file as it is, without what the cache keeps of it."""
    model, tokenizer = read_gguf(gguf, "float32", "the file")
    ours, theirs = smollm2.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert tokenizer(TEXTS).input_ids == smollm2.tokenizer(TEXTS).input_ids
    ids = torch.tensor([tokenizer(TEXTS[0]).input_ids])
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids=ids).logits, smollm2.model(input_ids=ids).logits)


def test_stacked_prompts_are_what_they_are_one_at_a_time(smollm2, prompts, batch):
    sums, _ = smollm2.nll(prompts, batch)
    for b in range(len(batch)):
        row = alone(batch, b)
        row.run.zero_()
        own = prompts[batch.run[b]][None]
        assert relative(smollm2.nll(own, row)[0], sums[b : b + 1]) < 1e-4


def test_padding_and_neighbors_change_nothing(smollm2, prompts, batch):
    sums, _ = smollm2.nll(prompts, batch)
    more = torch.tensor([1, 0, 2, 1])
    again, _ = smollm2.nll(prompts, batch.select(more))
    assert relative(again, sums[more]) < 1e-4
    assert relative(smollm2.nll(prompts, alone(batch, 1))[0], sums[1:2]) < 1e-4


def peft_s_loss(model, row):
    """The loss that a PEFT model computes of a row by itself."""
    ids = torch.cat((row.input_ids, row.labels), 1)
    labels = torch.cat((torch.full_like(row.input_ids, -100), row.labels), 1)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss


def test_a_prefix_is_peft_s_own_forward(smollm2, prompts, batch, with_peft):
    for b in (0, 2):
        row = alone(batch, b)
        theirs = peft_s_loss(with_peft, row)
        sums, counts = smollm2.nll(prompts, row)
        assert relative(sums[0] / counts[0], theirs) < 1e-4


def test_keys_and_values_are_peft_s_prefix_tuning(smollm2, prompts, batch, tmp_path):
    """At the start they compute what the embeddings compute."""
    keyed = copy.copy(smollm2)
    keyed.prompt_kind = "key_values"
    rows = of_kind(keyed, prompts)
    assert rows.shape == (2, 4, 30 * 2 * 3 * 64)
    sums, counts = keyed.nll(rows, batch)
    assert relative(sums, smollm2.nll(prompts, batch)[0]) < 1e-4
    SoftPrompt.of(keyed, rows[0]).save_pretrained(tmp_path)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(smollm2.model), str(tmp_path)).eval()
    for b in (0, 2):
        theirs = peft_s_loss(model, alone(batch, b))
        assert relative(sums[b] / counts[b], theirs) < 1e-5


@pytest.mark.parametrize("beams", [1, 4])
def test_greedy_and_beams_are_peft_s(beams, smollm2, prompts, batch, with_peft):
    row = alone(batch, 0)
    decoding = Decoding(num_beams=beams, max_new_tokens=8)
    (ours,) = smollm2.generate(prompts, row, decoding)
    ids = with_peft.generate(
        input_ids=row.input_ids, attention_mask=row.attention_mask, max_new_tokens=8, num_beams=beams,
        do_sample=False, pad_token_id=smollm2.tokenizer.pad_token_id,
    )  # fmt: skip
    new = ids[0, row.input_ids.shape[1] :] if ids.shape[1] > 8 + 1 else ids[0]
    assert smollm2.tokenizer.decode(new, skip_special_tokens=True) == ours


def test_ranking_is_the_summed_log_likelihood(smollm2, prompts, batch):
    words = encode_texts(smollm2, ["great", "terrible", "a bit long"], 9, outputs=True)
    scores = smollm2.rank(prompts, batch, candidates_tensor([words] * len(batch), -100))
    for b in range(len(batch)):
        row = alone(batch, b)
        embeds = torch.cat((prompts[batch.run[b]][None], smollm2.embedding(row.input_ids)), 1)
        for c, word in enumerate(words):
            whole = torch.cat((embeds, smollm2.embedding(torch.tensor([word]))), 1)
            with torch.no_grad():
                logits = smollm2.model(inputs_embeds=whole).logits[0].log_softmax(-1)
            first = embeds.shape[1] - 1
            own = sum(logits[first + i, token] for i, token in enumerate(word))
            assert relative(scores[b, c], own) < 1e-4


def exact_norm(self, hidden):
    """Llama's norm in its input's dtype: transformers' computes in float32 always."""
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * hidden * scale


def test_exact_maml_is_the_finite_difference(gguf, smollm2, monkeypatch):
    """In float64, along the gradient itself and along a random direction."""
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", exact_norm)
    exact = Backbone.from_pretrained("smollm2:q4_1", device="cpu", dtype="float64")
    start = draw_start(exact, PromptSpec(length=2, frequent="words"), (), 0).double()
    inputs = encode_texts(smollm2, ["good film", "bad film"], None)
    outputs = encode_texts(smollm2, ["yes", "no"], 9, outputs=True)
    batch = collate(inputs, outputs, [0, 0], pad=2)
    episodes = Episodes(1, [batch], batch)
    algorithm = MAML(inner_lr=0.02, inner_steps=1)
    loss = PromptObjective(exact)
    gradient, _ = algorithm.meta_gradient(loss, start, episodes)

    def outer(theta: torch.Tensor) -> float:
        _, slope = loss.gradient(theta[None], batch)
        return float(loss.gradient(theta[None] - 0.02 * slope, batch)[0][0])

    noise = torch.randn(start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, _ = loss.gradient(start[None], batch)
    assert first.isfinite().all()
    for direction in (gradient / gradient.norm(), noise / noise.norm()):
        step = 1e-4
        difference = (outer(start + step * direction) - outer(start - step * direction)) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-4, abs=1e-7)


def test_a_prompt_tuned_on_a_real_task_beats_the_majority_class(smollm2):
    """On rows that are neither trained on nor chosen on: the dev rows of another sample."""
    if SHARED is None or not (SHARED / "data" / "gym").is_dir():
        pytest.skip("no folder of real tasks (SOFTSTART_SHARED)")
    task = open_gym(str(SHARED / "data" / "gym")).load("sms_spam")
    backbone = copy.copy(smollm2)
    backbone.placement = "suffix"
    encoded = encode_task(task, backbone, TextFormat("{input}\nAnswer:", max_input_tokens=48))
    start = draw_start(backbone, PromptSpec(length=8, frequent="words"), (), 0)
    config = AdaptConfig(steps=16, eval_every=8, optimizer=AdamW(), lr_unit="embedding", max_tokens=2048)
    how = Evaluation(scoring="rank", max_tokens=2048)
    (tuned,) = adapt(backbone, [AdaptRun(start, encoded, 13, 0.2)], config, how)
    rows = encoded.dev[21]
    stack, jobs = torch.stack([start, tuned.prompt]), [Job(0, encoded, rows), Job(1, encoded, rows)]
    before, after = evaluate(backbone, stack, jobs, how)
    label = Counter(references[0] for references in rows.references).most_common(1)[0][0]
    majority = score(task.metric, [label] * len(rows), rows.references)
    assert after > majority + 0.15, (before, after, majority)
    assert after > before


def test_its_frequent_words_are_words(smollm2):
    ids = frequent_words(smollm2.tokenizer, 5000)
    tokens = smollm2.tokenizer.convert_ids_to_tokens(ids)
    assert len(set(ids)) == 5000
    assert not [token for token in tokens if "<" in token or len(token) == 1]
    assert "Ġthe" in tokens[:20]


def test_its_chat_format_has_one_begin_token(smollm2):
    (ids,) = encode_texts(smollm2, ["Is this good?"], None, chat=True)
    turn = [{"role": "user", "content": "Is this good?"}]
    made = smollm2.tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert ids == made
    assert smollm2.tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
    assert encode_texts(smollm2, ["yes"], 9, outputs=True, chat=True)[0][-1] == smollm2.tokenizer.eos_token_id


def test_the_notebook_runs(gguf, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in json.loads((ROOT / "examples" / "real_model.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it shows the plain format on purpose
                exec("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= {"STEPS": 2, "BACKBONE": "smollm2:q4_1"}
    said = capsys.readouterr().out
    assert "smollm2:q4_1 - SmolLM2-135M-Instruct rounded to 4 bits" in said
    assert "chat format without a prompt" in said
    assert "step   2" in said
