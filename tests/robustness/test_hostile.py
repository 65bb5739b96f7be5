"""Files that mean harm or took harm: refused in one line, without running, writing or reserving anything."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import sqlite3
import struct
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.models import random_t5, toy_encoded
from helpers.paths import ROOT
from helpers.rows import run_row
from helpers.toy_study import contents, toy
from softstart import MetaConfig, SoftPrompt, meta_train
from softstart.algorithms import FoMAML, MultiTask
from softstart.backbone import load_backbone
from softstart.cli import app as cli
from softstart.errors import Damaged, SoftstartError
from softstart.gym.catalog.reading import parse_catalog
from softstart.gym.folder import CrossFitFolder
from softstart.storage import token_cache
from softstart.storage.tensors import load_tensors, save_tensors
from softstart.study import run_study
from softstart.study.declare.study_file import parse_study
from softstart.study.results.stores import open_store
from softstart.training.adaptation import AdaptRun, adapt
from softstart.training.configs import AdaptConfig
from softstart.training.encoding import TextFormat
from softstart.yourtasks import Predictor


class Payload:
    """What a pickle can do when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_no_prompt_file_runs_code(tmp_path):
    done = tmp_path / "harm"
    files = {name: tmp_path / name for name in ("new.pt", "old.pt", "a.bin", "a.npy")}
    torch.save({"prompt_embeddings": Payload(done)}, files["new.pt"])
    torch.save({"prompt_embeddings": Payload(done)}, files["old.pt"], _use_new_zipfile_serialization=False)
    files["a.bin"].write_bytes(pickle.dumps(Payload(done)))
    np.save(files["a.npy"], np.array([Payload(done)], dtype=object), allow_pickle=True)
    for file in files.values():
        with pytest.raises(SoftstartError) as caught:
            SoftPrompt.load(file)
        assert "\n" not in str(caught.value)
    assert not done.exists()


def test_no_prompt_file_claims_more_memory_than_it_holds(tmp_path):
    stored, packed, view = (tmp_path / name for name in ("stored.pt", "packed.pt", "view.pt"))
    torch.save({"prompt_embeddings": torch.zeros(1000, 1000)}, stored)
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    assert packed.stat().st_size < stored.stat().st_size / 100
    torch.save({"prompt_embeddings": torch.zeros(1).expand(10**7, 10**7)}, view)
    (tmp_path / "shape.npy").write_bytes(_npy_header((10**7, 10**5)))
    header = json.dumps(
        {"prompt_embeddings": {"dtype": "F32", "shape": [10**7, 10**5], "data_offsets": [0, 4 * 10**12]}}
    )
    (tmp_path / "shape.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(64))
    (tmp_path / "length.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    for name in ("packed.pt", "view.pt", "shape.npy", "shape.safetensors", "length.safetensors"):
        with pytest.raises(SoftstartError):
            SoftPrompt.load(tmp_path / name)
    assert SoftPrompt.load(stored).tensor.shape == (1000, 1000)


def _npy_header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    "info",
    [
        {"labels": "w3"},
        {"labels": [1]},
        {"template": ["{input}"]},
        {"template": "{input.__class__}"},
        {"template": "{input:>9999999999}"},
        {"template": "{input!r}"},
        {"template": "{other}"},
        {"template": "{"},
        {"max_new_tokens": 10**12},
        {"max_new_tokens": "many"},
        {"scores": [{"task": "t"}]},
        {"source": 3},
    ],
)
def test_what_a_prompt_says_of_itself_is_checked(tmp_path, info):
    backbone = random_t5(torch.float32)
    file = tmp_path / "prompt.safetensors"
    SoftPrompt.of(backbone, torch.zeros(2, 16), info).save(file)
    with pytest.raises(SoftstartError, match=r"not one that Softstart writes|template"):
        Predictor(backbone, SoftPrompt.load(file))


def test_a_template_is_nothing_but_text_and_two_fields():
    assert TextFormat("{{a}} {task}: {input}").template.format(task="t", input="i") == "{a} t: i"
    with pytest.raises(SoftstartError, match=r"template '\{input\.__doc__\}'"):
        TextFormat("{input.__doc__}")


@pytest.mark.parametrize("what", ["config", "model", "tokenizer"])
def test_no_code_next_to_a_backbone_is_run(tmp_path, monkeypatch, capsys, what):
    backbone, harm, answers = random_t5(torch.float32), tmp_path / "harm", io.StringIO("y\n" * 9)
    model = tmp_path / "model"
    backbone.model.save_pretrained(model)
    backbone.tokenizer.save_pretrained(model)
    (model / "evil.py").write_text(f"import os\nos.mkdir({str(harm)!r})\n")
    auto_map, file = {
        "config": ({"AutoConfig": "evil.Evil"}, "config.json"),
        "model": ({"AutoModelForSeq2SeqLM": "evil.Evil"}, "config.json"),
        "tokenizer": ({"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_config.json"),
    }[what]
    said = json.loads((model / file).read_text()) | {"auto_map": auto_map}
    if what == "config":
        said |= {"model_type": "evil"}
    (model / file).write_text(json.dumps(said))
    monkeypatch.setattr(sys, "stdin", answers)
    for weights in (True, False):
        if what != "config":  # transformers knows the model and its tokenizer: its own code is used
            assert load_backbone(str(model), device="cpu", weights=weights).width == 16
        else:
            with pytest.raises(SoftstartError, match="code of its own, which Softstart never runs") as caught:
                load_backbone(str(model), device="cpu", weights=weights)
            assert "\n" not in str(caught.value)
    assert not harm.exists()
    assert answers.tell() == 0
    assert "Do you wish" not in capsys.readouterr().out


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LAUGHS}methods: {{pt: {{a: *a11}}}}\n", "stands for more than"),
        (f"{MERGES}methods: *a11\n", "stands for more than"),
        ("a: &a [*a]\n", "contains itself"),
        ("[" * 100_000, "nested more than"),
        ("".join(f"{' ' * i}a:\n" for i in range(200)), "nested more than"),
        ("a: !!python/object/apply:os.mkdir [harm]\n", "constructor"),
        ("? [a]\n: 1\n", "unhashable|hash"),
        ("a: 0x" + "f" * 10_000, "no such key|study|mapping|Field|Input|required|string"),
    ],
    ids=["laughs", "merges", "cycle", "deep flow", "deep block", "tag", "key", "number"],
)
def test_yaml_of_others_is_bounded(text, message):
    for read in (parse_study, parse_catalog):
        with pytest.raises(SoftstartError, match=message if read is parse_study else None):
            read(text, "file.yaml")


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "..", "", "x\0y", "a" * 101])
def test_a_studys_name_leads_nowhere(world, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    study = (world / "study.yaml").read_text().replace("name: unit\n", f"name: {json.dumps(name)}\n", 1)
    (tmp_path / "study.yaml").write_text(study)
    assert cli._main(["run", "study.yaml", "--gym", str(world / "gym")], debug=False) == 1
    assert "cannot be the name of a folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("bad", ["[1", "!!python/name:os.system", "&a [*a]"])
def test_an_override_that_is_no_yaml_is_one_line(world, capsys, bad):
    assert cli._main(["run", str(world / "study.yaml"), "--set", f"meta.steps={bad}"], debug=False) == 1
    assert "override" in capsys.readouterr().err


def test_json_that_never_ends_is_one_line(world, tmp_path):
    deep = "[" * 200_000
    task = tmp_path / "gym" / "toy-a"
    task.mkdir(parents=True)
    for file in (world / "gym" / "toy-a").iterdir():
        (task / file.name).write_bytes(file.read_bytes())
    (task / "task.json").write_text(deep)
    with pytest.raises(SoftstartError, match="not valid JSON"):
        CrossFitFolder(tmp_path / "gym").load("toy-a")
    save_file({"prompt_embeddings": torch.ones(2, 3)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(deep)
    with pytest.raises(SoftstartError, match="not a readable PEFT configuration"):
        SoftPrompt.load(tmp_path)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    file = tmp_path / "x.safetensors"
    tensors = {"b": torch.randn(3, 2), "a": torch.arange(4, dtype=torch.int32), "none": torch.zeros(0)}
    save_tensors(file, tensors, {"step": 3, "of": "this"})
    whole = file.read_bytes()
    for at in range(8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        file.write_bytes(data)
        try:
            loaded, header = load_tensors(file)
        except Damaged:
            continue
        # Of no consequence: in white space, or in the name under which the digest is kept.
        assert header == {"step": 3, "of": "this"}
        assert loaded.keys() == tensors.keys()
        assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_checkpoint_of_other_work_is_refused(tmp_path):
    backbone, file = random_t5(torch.float32), tmp_path / "c.safetensors"
    one, other = toy_encoded(backbone, "one", seed=1), toy_encoded(backbone, "other", seed=2)
    start, config = torch.ones(2, 16), MetaConfig(steps=1, meta_batch=1, checkpoint_every=1)
    first = FoMAML(inner_lr=0.1, inner_steps=1)
    meta_train(backbone, first, [one], start, config, checkpoint=file)
    for algorithm, tasks, begun, outer in (
        (FoMAML(inner_lr=0.2, inner_steps=1), [one], start, config),
        (MultiTask(), [one], start, config),
        (first, [other], start, config),
        (first, [one], start + 1, config),
        (first, [one], start, replace(config, seed=1)),
    ):
        with pytest.raises(Damaged, match="belongs to other work"):
            meta_train(backbone, algorithm, tasks, begun, replace(outer, steps=2), checkpoint=file)
    longer = meta_train(backbone, first, [one], start, replace(config, steps=2), checkpoint=file)
    assert len(longer.curve) == 2
    runs = [AdaptRun(start, one, 13, 0.5)]
    config = AdaptConfig(steps=2, eval_every=1)
    adapt(backbone, runs, config, checkpoint=tmp_path / "p.safetensors")
    for changed in (
        replace(runs[0], lr=0.1),
        replace(runs[0], task=other),
        replace(runs[0], start=start + 1),
    ):
        with pytest.raises(Damaged, match="belongs to other work"):
            adapt(backbone, [changed], config, checkpoint=tmp_path / "p.safetensors")


def test_a_number_changed_in_the_database_counts_as_not_computed(tmp_path):
    with open_store(tmp_path) as store:
        store.set_inputs("{}")
        store.add(runs=[run_row(key, dev=float("nan") if key == "n" else 0.5) for key in "abn"])
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("UPDATE runs SET dev=0.75 WHERE key='b'")
    with open_store(tmp_path) as store:
        assert store.runs().keys() == {"a", "n"}
        store.add(runs=[run_row("b")])
        assert store.runs().keys() == {"a", "b", "n"}
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("UPDATE inputs SET data='[]'")
    with open_store(tmp_path) as store, pytest.raises(SoftstartError, match="depends on is damaged"):
        store.inputs()


def test_of_a_broken_database_everything_readable_is_kept(tmp_path):
    keys = [f"key-{i:04}" for i in range(400)]
    with open_store(tmp_path) as store:
        store.set_inputs("{}")
        store.add(runs=[run_row(key, curve=[[0, i / 7, 0.5]] * 20) for i, key in enumerate(keys)])
    data = bytearray((tmp_path / "study.db").read_bytes())
    page = struct.unpack(">H", data[16:18])[0]
    # A leaf in the middle of the table of runs.
    at = data.index(repr(200 / 7).encode()) // page * page
    data[at : at + page] = os.urandom(page)
    (tmp_path / "study.db").write_bytes(data)
    with open_store(tmp_path) as store:
        kept = store.runs()
        assert 350 < len(kept) < 400
        assert all(kept[key]["curve"][0][1] == keys.index(key) / 7 for key in kept)
        store.add(runs=[run_row(key) for key in keys])
        assert len(store.runs()) == 400
    assert (tmp_path / "study.db.damaged").exists()


ENDLESS = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT "


@pytest.mark.parametrize(
    ("what", "sql"),
    [
        ("view 'inputs'", f"DROP TABLE inputs; CREATE VIEW inputs AS {ENDLESS} i AS id, '' AS data FROM c"),
        ("trigger 't'", "CREATE TRIGGER t AFTER DELETE ON failures BEGIN DELETE FROM runs; END"),
        ("column 'tests.more'", "ALTER TABLE tests ADD COLUMN more AS (hex(zeroblob(1e8)))"),
        ("column 'runs.more'", "DROP TABLE runs; CREATE TABLE Runs (key TEXT, more AS (hex(zeroblob(1e8))))"),
        (
            "column 'runs.key\") ",
            f'DROP TABLE runs; CREATE TABLE runs ("key"") {ENDLESS} i FROM c --" TEXT PRIMARY KEY)',
        ),
        ("table 'runs'", "DROP TABLE runs; CREATE VIRTUAL TABLE runs USING fts5(key)"),
        ("index 'i'", "CREATE INDEX i ON runs (hex(zeroblob(steps)))"),
    ],
)
def test_a_database_that_computes_is_not_read(tmp_path, what, sql):
    with open_store(tmp_path) as store:
        store.add(runs=[run_row("a")])
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.executescript(sql)
    for readonly in (True, False):
        with pytest.raises(Damaged, match=f"holds a {re.escape(what)}") as caught:
            open_store(tmp_path, readonly=readonly)
        assert "\n" not in str(caught.value)


def test_pages_that_hold_each_other_are_not_read_for_ever(tmp_path):
    """300^6 rows in a file of a few pages: every page has 300 times the next one as its child."""
    with open_store(tmp_path) as store:
        store.add(runs=[run_row("a")])
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("PRAGMA journal_mode=DELETE")
        root, size = (
            db.execute(f"SELECT {what}").fetchone()[0]
            for what in ("rootpage FROM sqlite_master WHERE name='runs'", "page_size FROM pragma_page_size")
        )
    data = bytearray((tmp_path / "study.db").read_bytes())
    first, levels, cells = len(data) // size, 6, 300

    def parent(child):
        start = size - 5 * cells
        head = struct.pack(">BHHHBI", 5, 0, cells, start, 0, child)
        places = b"".join(struct.pack(">H", start + 5 * i) for i in range(cells))
        return (head + places).ljust(start, b"\0") + struct.pack(">IB", child, 1) * cells

    at = (root - 1) * size
    data += data[at : at + size]
    for level in range(1, levels):
        data += parent(first + level)
    data[at : at + size] = parent(first + levels)
    data[28:32] = struct.pack(">I", len(data) // size)
    (tmp_path / "study.db").write_bytes(data)
    with (
        open_store(tmp_path, readonly=True) as store,
        pytest.raises(SoftstartError, match="contain each other"),
    ):
        store.runs()
    with open_store(tmp_path) as store:
        assert store.runs().keys() == {"a"}


def test_curves_of_others_are_refused(tmp_path):
    with open_store(tmp_path) as store:
        for curve in ("nonsense", [[1]], "3", "[" * 100_000):
            store.add(runs=[{**run_row("a"), "curve": curve}])
            with pytest.raises(SoftstartError, match="a curve that Softstart did not write"):
                store.runs()


def test_no_code_of_ours_runs_what_it_reads():
    """No eval, no shell, no unpickling, no code from the hub; yaml and torch only in their safe forms."""
    source = ROOT / "src"
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            where = f"{file.relative_to(source)}:{node.lineno} {name}"
            assert name not in ("eval", "exec", "os.system", "os.popen"), where
            assert not name.startswith(("pickle.load", "marshal.", "shelve.", "joblib.")), where
            assert name != "yaml.load" or "SafeLoader" in given["Loader"], where
            assert name != "torch.load" or given["weights_only"] == "True", where
            assert name != "np.load" or given["allow_pickle"] == "False", where
            assert given.get("shell", "False") == "False", where
            loads = re.match(r"(auto|Auto\w+)\.from_", name)
            assert given.get("trust_remote_code", None if loads else "False") == "False", where


def test_token_files_that_have_changed_places_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "WORTH_KEEPING", 0)
    monkeypatch.setenv("SOFTSTART_CACHE", str(tmp_path))
    tokenizer, made = random_t5(torch.float32).tokenizer, []

    def ids(text):
        def make():
            made.append(text)
            return {"part": [[len(made), len(text)]]}

        return token_cache.cached({"part": [text]}, {"input": 9}, tokenizer, make)

    one, other = ids("w3 w4"), ids("w5")
    assert (ids("w3 w4"), ids("w5"), len(made)) == (one, other, 2)
    first, second = (tmp_path / "tokens").iterdir()
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert ids("w3 w4") != other
    assert len(made) == 3


def test_a_fine_tuning_that_lost_its_test_is_computed_again(world, tmp_path):
    """Its weights are not kept, so nothing else could test it."""
    study = toy(world, methods={"pt": {}, "ft": {}}, samples=[13])
    run_study(study, tmp_path, device="cpu")
    before = contents(tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as db:
        db.execute("UPDATE tests SET test=1.5 WHERE run IN (SELECT key FROM runs WHERE method='ft')")
    run_study(study, tmp_path, device="cpu")
    assert contents(tmp_path) == before
