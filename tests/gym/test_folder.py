import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.shared import SHARED
from softstart.errors import SoftstartError
from softstart.gym import CrossFitFolder, Example, open_gym
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.metrics import score
from softstart.gym.source_folder import source_tasks
from softstart.gym.tsv import read_as_published

REAL = SHARED / "data" / "gym" if SHARED else None
EMO = "a sunny day\thappy\nrain again\tsad\n"
QA = "capital of France?\tParis\tparis\n"


def write_task(root, task, k=16, seeds=(13, 21), train=EMO, dev=EMO, test=EMO):
    folder = root / task
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"{task}_{k}_{seed}_train.tsv").write_bytes(_bytes(train))
        (folder / f"{task}_{k}_{seed}_dev.tsv").write_bytes(_bytes(dev))
    if test is not None:
        (folder / f"{task}_test.tsv").write_bytes(_bytes(test))
    return folder


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def test_reads_a_task(tmp_path):
    write_task(tmp_path, "emo")
    write_task(tmp_path, "squad-with_context", k=32, train=QA, dev=QA, test=QA)
    gym = open_gym(tmp_path)
    assert gym.tasks() == ("emo", "squad-with_context")
    emo = gym.load("emo")
    assert (emo.kind, emo.metric, emo.category) == (
        "classification",
        "Classification-F1",
        "classification/emotion",
    )
    assert list(emo.samples) == [13, 21]
    assert emo.samples[13].train == (Example("a sunny day", ("happy",)), Example("rain again", ("sad",)))
    assert emo.labels == ("happy", "sad")
    squad = gym.load("squad-with_context")
    assert squad.metric == "QA-F1"
    assert squad.test == (Example("capital of France?", ("Paris", "paris")),)


def test_one_test_file_or_the_same_for_every_seed(tmp_path):
    folder = write_task(tmp_path, "emo", test=None)
    for seed in (13, 21):
        (folder / f"emo_16_{seed}_test.tsv").write_text(EMO)
    assert len(CrossFitFolder(tmp_path).load("emo").test) == 2
    (folder / "emo_16_21_test.tsv").write_text(EMO + "late\tsad\n")
    with pytest.raises(SoftstartError, match=r"emo_16_21_test.tsv: differs from emo_16_13_test.tsv"):
        CrossFitFolder(tmp_path).load("emo")


field = st.text(st.characters(exclude_characters="\n\t", exclude_categories=["Cs"]), min_size=1)
field = field.filter(lambda s: s == s.strip() and s and not s.startswith("\ufeff"))


@given(rows=st.lists(st.tuples(field, st.lists(field, min_size=1, max_size=3)), min_size=1))
def test_every_text_without_tab_and_line_feed_survives(tmp_path_factory, rows):
    root = tmp_path_factory.mktemp("gym")
    lines = "".join("\t".join((text, *answers)) + "\n" for text, answers in rows)
    write_task(root, "squad-with_context", k=32, seeds=(13,), train=lines, dev=QA, test=QA)
    train = CrossFitFolder(root).load("squad-with_context").samples[13].train
    assert train == tuple(Example(text, tuple(answers)) for text, answers in rows)


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_at_the_end_do_not_matter(tmp_path):
    write_task(tmp_path, "emo", train="\ufeff" + EMO.replace("\n", "\r\n") + "\r\n\n")
    assert CrossFitFolder(tmp_path).load("emo").samples[13].train[0] == Example("a sunny day", ("happy",))


BAD_ROWS = {
    "no TAB": (b"torn text\n", "no TAB between input and answer"),
    "no answer": (b"text\t\n", "no answer after the TAB"),
    "no input": (b"\thappy\n", "no input before the TAB"),
    "too many columns": (b"a tab\tinside\thappy\n", "3 columns where classification has 2"),
    "blank": (b"\n", "blank line"),
    "not UTF-8": (b"caf\xe9\thappy\n", "not UTF-8 (byte 4 of the line)"),
}


@pytest.mark.parametrize(("row", "says"), BAD_ROWS.values(), ids=BAD_ROWS)
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_malformed_row_is_named_by_file_and_line_or_left_out_by_choice(tmp_path, split, row, says):
    rows = b"first\thappy\n" + row + b"last\tsad\n"
    write_task(tmp_path, "emo", seeds=(13,), **{split: rows})
    with pytest.raises(SoftstartError) as error:
        CrossFitFolder(tmp_path).load("emo")
    assert f"{split}.tsv, line 2: {says}" in str(error.value)
    assert "skip_malformed" in str(error.value)
    with pytest.warns(UserWarning, match=r"left out 1 malformed rows \(line 2"):
        emo = CrossFitFolder(tmp_path, skip_malformed=True).load("emo")
    kept = emo.test if split == "test" else getattr(emo.samples[13], split)
    assert [example.input for example in kept] == ["first", "last"]


def test_a_test_question_without_answer_stays_for_text_to_text(tmp_path):
    write_task(
        tmp_path, "squad-with_context", k=32, seeds=(13,), train=QA, dev=QA, test="unanswerable?\t\n" + QA
    )
    assert CrossFitFolder(tmp_path).load("squad-with_context").test[0] == Example("unanswerable?", ())


def test_answers_the_metric_cannot_use_are_found_on_loading(tmp_path):
    rows = "fine\t4\nbad\t1\n"
    write_task(tmp_path, "app_reviews", train=rows, dev=rows, test=rows.replace("4", "four"))
    with pytest.raises(SoftstartError, match=r"_test.tsv .*example 1.*: the answer 'four' is not a finite"):
        CrossFitFolder(tmp_path).load("app_reviews")


def test_several_k_in_one_folder(tmp_path):
    write_task(tmp_path, "emo", k=16)
    write_task(tmp_path, "emo", k=32, train=EMO * 2)
    write_task(tmp_path, "squad-with_context", k=32, train=QA, dev=QA, test=QA)
    write_task(tmp_path, "anli", k=16)
    with pytest.raises(SoftstartError, match="'emo' has several k: 16, 32"):
        CrossFitFolder(tmp_path).load("emo")
    gym = CrossFitFolder(tmp_path, shots=16)
    assert len(gym.load("emo").samples[13].train) == 2
    # Text-to-text shots count something else: its only k is no contradiction.
    assert gym.load("squad-with_context").kind == "text2text"
    with pytest.raises(SoftstartError, match=r"'anli' has no files for k = 32. It has k = 16."):
        CrossFitFolder(tmp_path, shots=32).load("anli")


@pytest.mark.parametrize(
    ("rows", "kind", "metric"),
    [("x\ta\ny\tb\nz\ta\n", "classification", "Classification-F1"), ("x\ta\ny\tb\n", "text2text", "EM")],
)
def test_k_decides_the_kind_of_an_unknown_task_with_a_warning(tmp_path, rows, kind, metric):
    write_task(tmp_path, "mine", k=2, train=rows)
    with pytest.warns(UserWarning, match=f"not in the catalog: treated as {kind}, scored by {metric}"):
        mine = CrossFitFolder(tmp_path).load("mine")
    assert (mine.kind, mine.metric) == (kind, metric)


def test_task_json_beats_the_catalog(tmp_path):
    folder = write_task(tmp_path, "emo")
    (folder / "task.json").write_text(json.dumps({"metric": "ACC"}))
    emo = CrossFitFolder(tmp_path).load("emo")
    assert (emo.kind, emo.metric, emo.category) == ("classification", "ACC", "classification/emotion")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not valid JSON"),
        ('{"metrics": "ACC"}', "expected an object of strings"),
        ('{"kind": "regression"}', "unknown kind 'regression'"),
        ('{"metric": "accuracy"}', "unknown metric 'accuracy'"),
    ],
)
def test_a_bad_task_json_is_named(tmp_path, content, says):
    (write_task(tmp_path, "emo") / "task.json").write_text(content)
    with pytest.raises(SoftstartError) as error:
        CrossFitFolder(tmp_path).load("emo")
    assert f"task.json: {says}" in str(error.value)


def test_missing_things_are_named(tmp_path):
    with pytest.raises(SoftstartError, match=r"gym folder '.*nowhere' does not exist"):
        open_gym(tmp_path / "nowhere")
    with pytest.raises(SoftstartError, match="holds no task"):
        open_gym(tmp_path)
    folder = write_task(tmp_path / "gym", "emo")
    with pytest.raises(SoftstartError, match=r"Did you mean '.*gym'"):
        open_gym(tmp_path)
    with pytest.raises(SoftstartError, match=r"unknown task 'emoo'. Did you mean emo?"):
        open_gym(tmp_path / "gym").load("emoo")
    (folder / "emo_16_21_dev.tsv").unlink()
    with pytest.raises(SoftstartError, match=r"emo_16_21_dev.tsv: cannot read"):
        open_gym(tmp_path / "gym").load("emo")
    (folder / "emo_16_21_dev.tsv").write_text("\n")
    with pytest.raises(SoftstartError, match=r"emo_16_21_dev.tsv: no rows"):
        open_gym(tmp_path / "gym").load("emo")


@pytest.mark.skipif(REAL is None or not REAL.is_dir(), reason="shared/data/gym is not here")
def test_every_real_task_loads():
    gym = CrossFitFolder(REAL)
    catalog = crossfit_catalog()
    for name in gym.tasks():
        task, facts = gym.load(name), catalog[name]
        assert sorted(task.samples) == [13, 21, 42, 87, 100], name
        assert task.test, name
        for sample in task.samples.values():
            if task.kind == "text2text":
                assert len(sample.train) == facts.shots, name
            else:
                counts = [sum(e.outputs[0] == label for e in sample.train) for label in task.labels]
                assert max(counts) == facts.shots, name


TORN = (
    "a subject\tcut here by a TAB\tthe answer\n"  # the rest of the input becomes an answer
    "no answer at all\t\n"
    "\tonly a label\n"  # which becomes the input
    "one\rbroken row\tx\n"  # a carriage return ends a line
    "\n"
    "whole\tanswer\tother\n"
)
READ = (
    Example("a subject", ("cut here by a TAB", "the answer")),
    Example("no answer at all", ()),
    Example("only a label", ()),
    Example("one", ()),
    Example("broken row", ("x",)),
    Example("", ()),
    Example("whole", ("answer", "other")),
)


def as_crossfit_reads(path):
    """The published reader (Ye et al., 2021), in one line of its own."""
    with path.open(encoding="utf-8") as file:
        cells = [line.strip().split("\t") for line in file.readlines()]
    return tuple(Example(first, tuple(rest)) for first, *rest in cells)


@given(
    st.lists(st.text(st.sampled_from("ab \t\r\n\u00e9\u2028\x0b\x85"), max_size=9), min_size=1, max_size=8)
)
def test_as_published_reads_what_the_published_code_reads(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("read") / "x_32_13_train.tsv"
    content = "\n".join(texts)
    path.write_bytes(content.encode())
    if content.strip("\n\r"):
        assert read_as_published(path) == as_crossfit_reads(path)


def test_a_folder_is_read_as_published_on_request(tmp_path):
    write_task(tmp_path, "aeslc", k=32, train=TORN, dev=TORN, test=TORN)
    with pytest.raises(SoftstartError, match="no answer after the TAB"):
        CrossFitFolder(tmp_path).load("aeslc")
    task = open_gym(tmp_path, as_published=True).load("aeslc")
    assert task.samples[13].train == READ
    # Rouge-L scores a row without answers 0, so the rows stay.
    assert task.test == READ
    assert score(task.metric, ["the answer"] * len(READ), [row.outputs for row in task.test]) > 0
    (source,) = source_tasks(tmp_path, as_published=True)
    assert source.samples[13].train == READ


def test_rows_that_stopped_the_published_evaluation_are_left_out(tmp_path):
    rows = "good\tirony\ncut\there\thate\n\thate\n"
    write_task(tmp_path, "tweet_eval-irony", train=rows, dev=rows, test=rows)
    with pytest.raises(SoftstartError, match="3 columns where classification has 2"):
        CrossFitFolder(tmp_path).load("tweet_eval-irony")
    with pytest.warns(UserWarning, match="left out 1 rows that Classification-F1 cannot score"):
        task = CrossFitFolder(tmp_path, as_published=True).load("tweet_eval-irony")
    assert [row.outputs for row in task.test] == [("irony",), ("here", "hate")]
    assert task.samples[13].train[2] == Example("hate", ())  # an empty input: nothing to learn from


def test_files_of_the_published_gym_are_known_by_their_checksums(tmp_path, monkeypatch):
    folder = write_task(tmp_path, "emo", seeds=(13,))
    sums = {
        f"emo_16_13_{part}.tsv": hashlib.md5(EMO.encode()).hexdigest() for part in ("train", "dev", "test")
    }
    other = {**sums, "emo_16_13_dev.tsv": "0" * 32}
    known = {"v1": {"emo": sums}, "v2": {"emo": other}}
    monkeypatch.setattr("softstart.gym.folder.published_checksums", known.__getitem__)
    assert CrossFitFolder(tmp_path).load("emo").published == ("v1",)
    (folder / "emo_test.tsv").write_text(EMO * 2)
    assert CrossFitFolder(tmp_path).load("emo").published == ()


@pytest.mark.skipif(not REAL or not REAL.is_dir(), reason="shared/data/gym is not here")
def test_real_files_are_read_as_published():
    strict, published = CrossFitFolder(REAL), CrossFitFolder(REAL, as_published=True)
    for name in published.tasks()[::20]:
        task, files = published.load(name), sorted((REAL / name).glob("*_13_train.tsv"))
        assert task.samples[13].train == as_crossfit_reads(files[0])
        assert strict.load(name).published == task.published
