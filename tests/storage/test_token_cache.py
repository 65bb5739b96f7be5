import random

import pytest

from helpers.models import reads_with, word_tokenizer
from softstart.gym.task import Example, Sample, Task
from softstart.storage import token_cache
from softstart.training.encoding import TextFormat, encode_task

TEXT = TextFormat(template="{task} {input}", max_input_tokens=9, max_output_tokens=4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache that keeps everything, however small."""
    monkeypatch.setenv("SOFTSTART_CACHE", str(tmp_path))
    monkeypatch.setattr(token_cache, "WORTH_KEEPING", 0)
    return tmp_path


def task(seed=0, name="w3"):
    r = random.Random(seed)

    def words(low=1):
        return " ".join(f"w{r.randint(3, 59)}" for _ in range(r.randint(low, 12)))

    def rows(n):
        return tuple(Example(words(), tuple(words() for _ in range(r.randint(0, 3)))) for _ in range(n))

    samples = {s: Sample(s, rows(5), rows(4)) for s in (13, 21)}
    return Task(name, "text2text", "EM", "other", samples, rows(6))


def plain(encoded):
    parts = {"test": encoded.test, **{f"{s} train": r for s, r in encoded.train.items()}}
    parts |= {f"{s} dev": rows for s, rows in encoded.dev.items()}
    rows = {name: (part.inputs, part.outputs, part.references) for name, part in parts.items()}
    return rows, encoded.labels, encoded.label_ids, encoded.max_new_tokens, encoded.name, encoded.metric


def files(cache):
    return list(cache.rglob("*.safetensors"))


def refuse(*_, **__):
    raise AssertionError("tokenized in place of reading the cache")


def test_what_is_read_equals_what_was_tokenized(cache, monkeypatch):
    tokenizer = word_tokenizer()
    with monkeypatch.context() as off:
        off.setenv("SOFTSTART_CACHE", "off")
        wanted = plain(encode_task(task(), reads_with(tokenizer), TEXT))
        assert not files(cache)
    assert plain(encode_task(task(), reads_with(tokenizer), TEXT)) == wanted
    assert len(files(cache)) == 1
    monkeypatch.setattr("softstart.training.encoding._input_ids", refuse)
    # A tokenizer loaded again is the same tokenizer.
    assert plain(encode_task(task(), reads_with(word_tokenizer()), TEXT)) == wanted


def test_everything_that_changes_the_tokens_changes_the_key(cache):
    tokenizer, other = word_tokenizer(), word_tokenizer()
    other.add_tokens(["w99"])
    left = word_tokenizer()
    left.truncation_side = "left"
    for each, toy, text in (
        (tokenizer, task(), TEXT),
        (other, task(), TEXT),
        (left, task(), TEXT),
        (tokenizer, task(seed=1), TEXT),
        (tokenizer, task(name="w4"), TEXT),
        (tokenizer, task(), TextFormat("{task} {input}", 8, 4)),
        (tokenizer, task(), TextFormat("{task} {input}", 9, 5)),
        (tokenizer, task(), TextFormat("{input} {task}", 9, 4)),
    ):
        before = len(files(cache))
        encode_task(toy, reads_with(each), text)
        encode_task(toy, reads_with(each), text)
        assert len(files(cache)) == before + 1


def test_how_outputs_end_changes_the_key(cache):
    for continues in (False, True):
        wanted = word_tokenizer()
        ids = encode_task(task(), reads_with(wanted, continues), TEXT).test.outputs
        ends = {answer[-1] == wanted.eos_token_id for answers in ids for answer in answers}
        assert ends == {continues}
    assert len(files(cache)) == 2


def test_tokens_added_later_change_the_fingerprint(cache):
    tokenizer = word_tokenizer()
    first = token_cache.fingerprint(tokenizer)
    assert token_cache.fingerprint(word_tokenizer()) == first
    tokenizer.add_tokens(["w99"])
    second = token_cache.fingerprint(tokenizer)
    tokenizer.truncation_side = "left"
    assert len({first, second, token_cache.fingerprint(tokenizer)}) == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "folder"])
def test_a_damaged_file_is_built_again_without_a_word(cache, damage, recwarn):
    tokenizer = word_tokenizer()
    wanted = plain(encode_task(task(), reads_with(tokenizer), TEXT))
    (file,) = files(cache)
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        broken = {"empty": b"", "cut": whole[:-8], "flipped": flipped, "foreign": b"not safetensors" * 9}
        file.write_bytes(broken[damage])
    assert plain(encode_task(task(), reads_with(tokenizer), TEXT)) == wanted
    if damage != "folder":
        assert file.read_bytes() == whole
    assert not recwarn.list


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTSTART_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(token_cache, "WORTH_KEEPING", 0)
    assert encode_task(task(), reads_with(word_tokenizer()), TEXT).test


def test_small_tasks_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTSTART_CACHE", str(tmp_path))
    encode_task(task(), reads_with(word_tokenizer()), TEXT)
    assert not files(tmp_path)
