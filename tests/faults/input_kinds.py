"""What people give to commands, by mistake or with intent: each kind is a function of one trial."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from faults.inputs import Trial, contents_of
from faults.power import Change, after_cut, possible, read_log, traced
from faults.running import start
from faults.targets import finished_work
from softstart import SoftPrompt
from softstart.gym.rows import read_rows

ROOT = Path(__file__).parent.parent.parent
ODD_NAMES = (
    "[v2]",
    "x[/b]",
    ":smile:",
    "a b",
    "情感",
    "é",
    "=1+1",
    "--x",
    "a'b\"c",
    "a\x1b[2Jb",
    "tab\there",
)
FORMULAS = ("=1+1", "+49 170", "-x", "@cmd", "'=quoted", "'tis", "plain")


def tune(trial: Trial, **changed: Any) -> list[str]:
    """The command that tunes a prompt on the table, with some words changed."""
    words = trial.world.targets["adapt"].to(trial.here / "out")
    for option, value in changed.items():
        words[words.index(f"--{option}") + 1] = str(value)
    return words


def tensors_of_a_model(trial: Trial) -> None:
    """A checkpoint whose tensors are not those of the model."""
    model = trial.here / "model"
    shutil.copytree(trial.world.root / "world" / "model", model)
    file = model / "model.safetensors"
    tensors = load_file(file)
    name = trial.rng.choice(sorted(tensors))
    how = trial.rng.choice(("drop", "rename", "surplus", "shape", "prefix", "layers", "nan"))
    if how == "drop":
        del tensors[name]
    elif how == "rename":
        tensors[f"{name}_"] = tensors.pop(name)
    elif how == "surplus":
        tensors[f"more.{name}"] = tensors[name].clone()
    elif how == "shape":
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    elif how == "prefix":
        prefix = trial.rng.choice(("module.", "_orig_mod.", "module._orig_mod."))
        tensors = {f"{prefix}{key}": value for key, value in tensors.items()}
    elif how == "layers":
        config = json.loads((model / "config.json").read_text())
        config["num_layers"] += trial.rng.choice((-1, 1))
        config["num_decoder_layers"] = config["num_layers"]
        (model / "config.json").write_text(json.dumps(config))
    else:
        tensors[name] = torch.full_like(tensors[name], math.nan)
    save_file(tensors, file, {"format": "pt"})
    trial.note = f"{how} {name}"
    ended = trial.call(*tune(trial, backbone=model))
    if how == "prefix":
        if trial.succeeded(ended):
            trial.same("adapt", trial.here / "out", but=("header",))
            if "left out" not in ended.said:
                trial.wrong.append("a prefix is stripped without a word")
    else:
        trial.refused(ended, "checkpoint")


def numbers_of_a_prompt(trial: Trial) -> None:
    """A prompt that holds no numbers, or belongs to another model."""
    prompt = SoftPrompt.load(trial.world.start)
    how = trial.rng.choice(("nan", "inf", "model", "width", "digest", "rows"))
    file, words = trial.here / "p.safetensors", [how]
    tensor = prompt.tensor.clone()
    if how in ("nan", "inf"):
        tensor[trial.rng.randrange(len(tensor)), trial.rng.randrange(tensor.shape[1])] = float(how)
        words = ["NaN or infinite"]
    elif how == "width":
        tensor, words = torch.cat([tensor, tensor], 1), ["width"]
    elif how == "rows":
        tensor, words = tensor[:0], ["no soft prompt"]
    else:
        words = ["weights"]
        prompt = replace(prompt, backbone_digest="0" * len(prompt.backbone_digest))
    replace(prompt, tensor=tensor).save(file)
    command = trial.rng.choice(("predict", "evaluate", "adapt", "inspect", "meta-train"))
    trial.note = f"{how} in {command}"
    table = str(trial.world.table)
    calls = {
        "predict": ("predict", file, "--rows", table, "--out", "o.csv", *trial.world.model),
        "evaluate": ("evaluate", file, "--rows", table, *trial.world.model),
        "adapt": (*tune(trial), "--init", file),
        "inspect": ("inspect", file, *trial.world.model[:2]),
        "meta-train": (*trial.world.targets["meta-train"].to(trial.here / "out"), "--init", file),
    }
    trial.refused(trial.call(*calls[command]), *words)


def _with(lines: list[str], *more: str) -> bytes:
    return "\n".join([*lines, *more]).encode()


def rows_of_a_table(trial: Trial) -> None:
    """A table that cannot mean what it seems to."""
    good = trial.world.table.read_text().splitlines()
    place = trial.rng.randrange(2, len(good))
    row = {"input": "w10 w11", "label": "w3"}
    lines = [json.dumps(row)] * 12 + [json.dumps({**row, "label": "w4"})] * 12
    faults: dict[str, tuple[str, bytes, tuple[str, ...], str]] = {
        "twice": ("t.csv", b"input,input,label\na,b,w3\n", (), "two columns"),
        "quote": ("t.csv", "\n".join([*good[:place], '"w10,w3', *good[place:]]).encode(), (), "line"),
        "columns": ("t.csv", "\n".join([*good[:place], "w10,w3,w4", *good[place:]]).encode(), (), "columns"),
        "latin": ("t.csv", "\n".join([*good[:place], "é,w3"]).encode("latin-1"), (), "not UTF-8"),
        "nul": ("t.csv", b"\0" * 4096, (), "t.csv"),
        "empty": ("t.csv", b"", (), "t.csv"),
        "head": ("t.csv", good[0].encode(), (), "t.csv"),
        "surrogate": ("t.jsonl", _with(lines, '{"input": "\\ud800", "label": "w3"}'), (), "line 25"),
        "nan": ("t.jsonl", _with(lines, '{"input": "w9", "label": NaN}'), (), "line 25"),
        "null": ("t.jsonl", _with(lines, '{"input": null, "label": "w3"}'), (), "line 25"),
        "json": ("t.jsonl", _with(lines, '{"input": '), (), "line 25"),
        "list": ("t.jsonl", _with(lines, "[1]"), (), "line 25"),
        "column": ("t.csv", _with(good), ("--label", "lable"), "lable"),
        "template": ("t.csv", _with(good), ("--input", "constant"), "column"),
        "brace": ("t.csv", _with(good), ("--input", "{input"), "brace"),
        "reserved": ("t.csv", _with(["LABEL,label", *good[1:]]), ("--input", "{LABEL}"), "LABEL"),
        "parquet": ("t.parquet", b"PAR1" + bytes(100), (), "parquet"),
    }  # fmt: skip
    how = trial.rng.choice(sorted(faults))
    name, data, options, said = faults[how]
    (trial.here / name).write_bytes(data)
    trial.note = how
    trial.refused(trial.call(*tune(trial, train=name), *options), said)


def labels_that_look_the_same(trial: Trial) -> None:
    """Labels that the model cannot tell apart, or the same one twice."""
    tuned, table = trial.world.start, trial.world.table
    unknown = [f"never{trial.rng.randrange(10**6)}" for _ in range(2)]
    how = trial.rng.choice(("unknown", "twice", "in a table"))
    trial.note = how
    predict = ("predict", tuned, "--rows", table, "--out", "o.csv", *trial.world.model)
    if how == "in a table":
        text = table.read_text().replace(",w3", f",{unknown[0]}").replace(",w4", f",{unknown[1]}")
        (trial.here / "t.csv").write_text(text)
        ended = trial.call(*tune(trial, train="t.csv"))
        trial.refused(ended, "same tokens", *unknown)
    else:
        labels = unknown if how == "unknown" else ["w3", "w3"]
        ended = trial.call(*predict, "--labels", labels[0], "--labels", labels[1])
        trial.refused(ended, "same tokens" if how == "unknown" else "twice")


def keys_of_a_study(trial: Trial) -> None:
    """A study that nobody means: keys there twice or unknown, numbers out of range, other bytes."""
    study, rng = yaml.safe_load((trial.world.root / "world" / "study.yaml").read_text()), trial.rng
    text, words = "", ["study.yaml"]
    how = rng.choice(("twice", "unknown", "range", "bytes", "tag", "text"))
    if how == "range":
        place, key = rng.choice((
            ("meta", "steps"), ("meta", "lr"), ("adaptation", "steps"), ("adaptation", "eval_every"),
            ("prompt", "length"), ("finetuning", "steps"), ("text", "max_input_tokens"),
            ("meta", "meta_batch"),
        ))  # fmt: skip
        value = rng.choice((0, -1, math.nan, math.inf, 2**63, 10**30))
        study.setdefault(place, {})[key] = value
        trial.note, words = f"{place}.{key}: {value}", [key]
    elif how == "unknown":
        key = rng.choice(("metod", "adaptatoin", "lerning_rates", "sample"))
        study[key] = study.pop("methods" if key == "metod" else rng.choice(("adaptation", "samples")))
        trial.note, words = key, [key]
    elif how == "twice":
        text, words = yaml.safe_dump(study) + "name: again\n", ["twice"]
    elif how == "tag":
        text, words = yaml.safe_dump(study) + "variants: !!python/object/apply:os.mkdir [harm]\n", ["YAML"]
    elif how == "text":
        text = rng.choice(("", "[]", "word", "a: [", "\t\n"))
    data = (text or yaml.safe_dump(study)).encode()
    if how == "bytes":
        data, words = data + b"# \xff\xfe\n", ["not UTF-8"]
    if how == "text":
        data = text.encode()
    (trial.here / "study.yaml").write_bytes(data)
    trial.note = trial.note or how
    gym = ("--gym", trial.world.root / "world" / "gym")
    ended = trial.call("run", "study.yaml", *gym, *trial.world.model, "--out", "out")
    trial.refused(ended, *words)
    if (trial.here / "out").exists() or (trial.here / "harm").exists():
        trial.wrong.append("something was written before the study was refused")


def folders_of_others(trial: Trial) -> None:
    """An output folder that holds a user's own files, under names that Softstart writes."""
    names = (
        "README.md", "study.yaml", "results.csv", "report.html", "checkpoints/mine.safetensors", "notes.txt",
        "prompts/a.txt", "adapter_config.json", "model.safetensors", "manifest.json", "runs.csv",
    )  # fmt: skip
    taken = trial.here / "taken"
    for name in trial.rng.sample(names, trial.rng.randint(1, 5)):
        (taken / name).parent.mkdir(parents=True, exist_ok=True)
        (taken / name).write_text(f"mine: {name}")
    before = contents_of(taken)
    target = trial.rng.choice(("study", "adapt", "meta-train", "export", "pretrain", "file"))
    trial.note = f"{target} into {', '.join(sorted(before))}"
    if target == "file":
        (trial.here / "m.safetensors").write_bytes(b"weights")
        trial.refused(trial.call("export", trial.world.start, "m.safetensors"), "did not write")
        if (trial.here / "m.safetensors").read_bytes() != b"weights":
            trial.lost.append("m.safetensors")
        return
    calls = {
        "export": ["export", str(trial.world.start), str(taken)],
        "pretrain": ["tiny", "pretrain", "--tokens", "1000", "--out", str(taken)],
    }
    words = calls.get(target) or trial.world.targets[target].to(taken)
    trial.refused(trial.call(*words), "did not write")
    trial.kept(taken, before)


def columns_of_the_user(trial: Trial) -> None:
    """A table with columns of its own, some named like ours, cells like formulas, rows of several kinds."""
    rng = trial.rng
    plain = list(csv.DictReader(io.StringIO(trial.world.table.read_text())))[:12]
    own = {
        name: [rng.choice(FORMULAS) for _ in plain] for name in rng.sample(("LINE", "note", "=x", "id"), 2)
    }
    rows = [
        {"input": row["input"], **{name: cells[i] for name, cells in own.items() if i or rng.random() < 0.5}}
        for i, row in enumerate(plain)
    ]
    taken = rng.choice((None, None, "prediction", "p(w3)"))
    if taken:
        rows[rng.randrange(len(rows))][taken] = "mine"
    (trial.here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = rng.choice(("o.csv", "o.jsonl"))
    trial.note = f"{sorted(own)}, {taken}, {name}"
    command = ("predict", trial.world.start, "--rows", "rows.jsonl", "--out", name, *trial.world.model)
    ended = trial.call(*command)
    if taken:
        trial.refused(ended, taken)
        return
    if not trial.succeeded(ended):
        return
    written = list(read_rows(trial.here / name))
    for row, found in zip(rows, written, strict=True):
        trial.lost += [key for key, value in row.items() if found.get(key) != value]
    known = trial.world.known
    if "predictions" not in known:
        (trial.here / "plain.csv").write_text("input\n" + "".join(f"{row['input']}\n" for row in plain))
        trial.call(
            "predict", trial.world.start, "--rows", "plain.csv", "--out", "plain.jsonl", *trial.world.model
        )
        known["predictions"] = [row["prediction"] for row in read_rows(trial.here / "plain.jsonl")]
    if [row["prediction"] for row in written] != known["predictions"]:
        trial.wrong.append("other predictions")
    raw = (trial.here / name).read_text()
    if name == "o.csv":
        cells = [cell for row in csv.reader(io.StringIO(raw)) for cell in row]
        trial.wrong += [
            f"a formula: {cell}" for cell in cells if cell[:1] in "=+-@" and cell and not _number(cell)
        ]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def scores_of_others(trial: Trial) -> None:
    """Results with scores that are none, or of two scales."""
    results = trial.world.reference("study") / "results.csv"
    rows = list(csv.DictReader(results.open(newline="")))
    place, how = (
        trial.rng.randrange(len(rows)),
        trial.rng.choice(("nan", "inf", "-inf", "word", "points", "all")),
    )
    for i, row in enumerate(rows):
        if i == place or how == "all":
            row["test"] = {"points": "93.2", "all": str(100 * float(row["test"] or 0) + 1.5)}.get(how, how)
    with (trial.here / "r.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    trial.note = how
    trial.refused(trial.call("arg", results, "r.csv", "--mixed"), "r.csv", "test score")


def odd_names(trial: Trial) -> None:
    """Folders, tables and studies with names like markup, formulas or commands to a terminal."""
    name = trial.rng.choice(ODD_NAMES)
    what = trial.rng.choice(("folder", "table", "missing", "report"))
    trial.note = f"{what} {name!r}"
    if what == "folder":
        ended = trial.call(*[f"./{name}" if w == str(trial.here / "out") else w for w in tune(trial)])
        if trial.succeeded(ended):
            trial.same("adapt", trial.here / name)
    elif what == "table":
        (trial.here / f"{name}.csv").parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(trial.world.table, trial.here / f"{name}.csv")
        ended = trial.call(*tune(trial, train=f"./{name}.csv"))
        if trial.succeeded(ended):
            trial.same("adapt", trial.here / "out", but=("header",))
    elif what == "missing":
        command = trial.rng.choice(("status", "report", "similarity", "results"))
        trial.refused(trial.call(command, f"./{name}"), "no such study folder")
    else:
        shutil.copytree(trial.world.reference("study"), trial.here / name)
        trial.succeeded(trial.call("report", f"./{name}"))
    if any("\x1b[2J" in ended.said for ended in trial.said):
        trial.bugs.append("a name steers the terminal")


def odd_outputs(trial: Trial) -> None:
    """An output that is closed, full, or cannot write every sign."""
    how = trial.rng.choice(("closed", "full", "ascii", "cp1252", "gone"))

    def shim() -> None:
        if how == "closed":
            sys.stdout = None  # type: ignore[assignment]
        elif how in ("full", "gone"):
            there = os.open("/dev/full", os.O_WRONLY) if how == "full" else os.pipe()
            if how == "gone":
                os.close(there[0])
                there = there[1]
            os.dup2(there, 1)
            sys.stdout = os.fdopen(1, "w", closefd=False)
        else:
            sys.stdout = os.fdopen(1, "w", encoding=how, closefd=False)

    command = trial.rng.choice(("adapt", "report", "status", "results", "settings"))
    study = trial.here / "study"
    if command in ("report", "status", "results"):
        shutil.copytree(trial.world.reference("study"), study)
    words = {"adapt": tune(trial), "settings": ["gym", "settings"]}.get(command, [command, str(study)])
    trial.note = f"{how} {command}"
    ended = trial.call(*words, shim=shim)
    if how == "gone" and ended.code == 1 and not ended.traceback:
        trial.bugs.clear()  # nobody reads: the command ends without a word, as any other does
    if how not in ("full", "gone") and command != "results":
        trial.succeeded(ended)
    # What was computed is there, whoever reads the output.
    if command == "adapt" and (ended.code == 0 or (trial.here / "out").exists()):
        trial.same("adapt", trial.here / "out")


def odd_options(trial: Trial) -> None:
    """Values that no option means."""
    option, value = trial.rng.choice((
        ("--device", "meta"), ("--device", "cuda:99"), ("--device", ""),
        ("--device", "cpu:99999999999999999999"),
        ("--lr", "nan"), ("--lr", "-1"), ("--lr", "inf"), ("--lr", "1e30"), ("--steps", "0"),
        ("--steps", str(2**63)),
        ("--length", "0"), ("--length", str(10**12)), ("--splits", "0"), ("--splits", str(10**10)),
        ("--seed", "-1"), ("--seed", str(2**64)), ("--max-input-tokens", "0"),
        ("--max-input-tokens", str(10**10)),
        ("--metric", "os.system"), ("--metric", "nothing"), ("--lr-unit", "other"), ("--init", "nothing:x"),
        ("--init", ""), ("--test", "missing.csv"), ("--train", "missing.csv"), ("--train", ""),
        ("--revision", "x"), ("--backbone", ""), ("--label", ""), ("--input", "{}"),
        ("--out", "/proc/nowhere"),
    ))  # fmt: skip
    trial.note = f"{option} {value!r}"
    words = tune(trial)
    ended = trial.call(*words, option, value)
    trial.refused(ended)
    threads = trial.rng.choice(("0", "-1", "100000000", "x", ""))
    trial.refused(trial.call(*trial.world.targets["study"].to(trial.here / "s")[:-1], threads))


def files_of_a_study(trial: Trial) -> None:
    """Files in a study's folder that somebody has changed: a report leaves them out, or says which."""
    study, rng = trial.here / "study", trial.rng
    shutil.copytree(trial.world.reference("study"), study)
    name = rng.choice(
        ("similarity.json", "similarity.json", "results.csv", "curves.csv", "study.yaml", "join.json")
    )
    data = rng.choice((
        b"", b"{", b"[]", b"\xff\xfe", b'{"measures": 1}',
        b'{"measures": {"gradient": {"tasks": [], "values": 3}}}',
        b"null", b"a,b\n1,2\n", bytes(100),
    ))  # fmt: skip
    (study / name).write_bytes(data)
    trial.note = f"{name}: {data[:30]!r}"
    ended = trial.call("report", "study")
    if name == "study.yaml":
        trial.refused(ended, "study.yaml")
        again = trial.call(*trial.world.targets["study"].to(study))
        if trial.succeeded(again):
            trial.same("study", study)
        return
    if trial.succeeded(ended):
        trial.same("study", study)
        if name == "similarity.json" and "similarity.json" not in ended.said:
            trial.wrong.append("left out without a word")
    if name == "join.json":
        words = trial.world.targets["study"].to(study)
        mode = rng.choice((0o600, 0o644, 0o666))
        (study / name).chmod(mode)
        said = "no process accepts" if mode == 0o600 else "other users can"
        trial.refused(trial.call(*words[: words.index("--threads")], "--join"), said)


def folders_that_go_away(trial: Trial) -> None:
    """A study's folder or database is moved, removed or replaced while it runs."""
    out, rng = trial.here / "out", trial.rng
    how = rng.choice(("move folder", "remove folder", "move database", "replace database", "remove lock"))
    after, kept = rng.randint(1, 8), trial.here / "kept"

    def shim() -> None:
        from softstart.study.results.sqlite_store import SQLiteStore

        write, count = SQLiteStore.write, [0]

        def written(store: Any, *rows: Any, **more: Any) -> None:
            write(store, *rows, **more)
            count[0] += 1
            if count[0] != after:
                return
            if "folder" in how:
                shutil.copytree(out, kept)
            if how == "move folder":
                out.rename(trial.here / "moved")
            elif how == "remove folder":
                shutil.rmtree(out)
            elif how == "remove lock":
                (out / "study.lock").unlink()
            else:
                (out / "study.db").rename(trial.here / "study.db")
                if how == "replace database":
                    shutil.copy(trial.here / "study.db", out / "study.db")

        SQLiteStore.write = written  # type: ignore[method-assign]

    trial.note = f"{how} after {after} commits"
    command = trial.world.targets["study"].to(out)
    ended = trial.call(*command, shim=shim)
    trial.refused(ended, "was removed, renamed or replaced")
    place = {"move folder": trial.here / "moved", "remove folder": kept}.get(how, out)
    if "database" in how:
        (trial.here / "study.db").replace(out / "study.db")
    before = finished_work(place) if how == "move folder" else {}
    again = trial.call(*trial.world.targets["study"].to(place))
    if trial.succeeded(again):
        trial.same("study", place, close=True)
        now = finished_work(place)
        trial.lost += [key for key, row in before.items() if now.get(key) != row]


def interrupts(trial: Trial) -> None:
    """Ctrl-C at any moment: "kept" is said only where something is, and what is said is kept."""
    name = trial.rng.choice(("study", "meta-train", "adapt"))
    out = trial.here / "out"
    command = trial.world.targets[name].to(out)
    running = start(command, trial.here.with_name(f"said-{trial.number}-0.txt"))
    moment = trial.rng.random() * 4
    began = time.monotonic()
    while running.poll() is None and time.monotonic() - began < moment:
        time.sleep(0.002)
    running.send(signal.SIGINT)
    ended = running.wait(180)
    trial.said.append(ended)
    trial.note = f"{name} after {moment:.1f} s: {ended.code}"
    if ended.traceback or ended.code not in (0, 130):
        trial.bugs.append(ended.last[:200])
    there = out.is_dir() and any(
        path.suffix == ".safetensors" for path in out.rglob("*") if "adapter_model" not in path.name
    )
    if ended.code == 130 and "is kept" in ended.said and not there:
        trial.wrong.append("says that something is kept where nothing is")
    before = finished_work(out) if name == "study" and (out / "study.db").exists() else {}
    if trial.succeeded(trial.call(*command)):
        trial.same(name, out)
        now = finished_work(out) if before else {}
        trial.lost += [key for key, row in before.items() if now.get(key) != row]


@cache
def _recorded(world_root: Path) -> tuple[Path, tuple[Change, ...], dict[str, Any]]:
    """A study under the eyes of strace, once."""
    root = world_root / "power"
    (root / "disk").mkdir(parents=True)
    words = Path(world_root / "power" / "command.json")
    command = json.loads((world_root / "study-command.json").read_text())
    words.write_text(json.dumps(command))
    program = [sys.executable, "-m", "tests.faults.promising", *command]
    done = subprocess.run(traced(program, root / "log"), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    disk = root / "disk"
    return disk, tuple(read_log(root / "log", disk)), finished_work(disk / "out")


def power_cuts(trial: Trial) -> None:
    """The power goes at any moment of a study; what was promised before is there after it."""
    if not possible():
        trial.skipped = "no strace here"
        return
    root = trial.world.root
    file = root / "study-command.json"
    if not file.exists():
        file.write_text(json.dumps(trial.world.targets["study"].to(root / "power" / "disk" / "out")))
    _, changes, whole = _recorded(root)
    cut = trial.rng.randint(1, len(changes))
    promised = {name for text in after_cut(changes[:cut], trial.rng, trial.here) for name in text.split("\n")}
    out = trial.here / "out"
    before = {key: row for key, row in whole.items() if key in promised}
    trial.note = f"after {cut} of {len(changes)} changes, {len(before)} rows promised"
    there = finished_work(out, damaged=True) if out.is_dir() else {}
    trial.lost += [key for key, row in before.items() if there.get(key) != row]
    if trial.succeeded(trial.call(*trial.world.targets["study"].to(out))):
        trial.same("study", out, close=True)
        now = finished_work(out)
        trial.lost += [key for key, row in before.items() if now.get(key) != row]


def words_without_embedding(trial: Trial) -> None:
    """A tokenizer that knows more tokens than the model has embeddings."""
    model = trial.here / "model"
    shutil.copytree(trial.world.root / "world" / "model", model)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    how = trial.rng.choice(("pad", "word", "unused"))
    trial.note = how
    if how == "pad":
        tokenizer.add_special_tokens({"pad_token": "<mine>"})
    else:
        tokenizer.add_tokens([f"new{trial.rng.randrange(99)}" if how == "unused" else "w10"] * 1)
        if how == "word":
            tokenizer.add_tokens(["fresh"])
    tokenizer.save_pretrained(model)
    if how == "word":
        text = trial.world.table.read_text().replace("w10", "fresh")
        (trial.here / "t.csv").write_text(text)
        ended = trial.call(*tune(trial, backbone=model, train="t.csv"))
        if "fresh" in text:
            trial.refused(ended, "no embedding")
        return
    ended = trial.call(*tune(trial, backbone=model))
    if trial.succeeded(ended):
        trial.same("adapt", trial.here / "out", but=("header",))


KINDS: tuple[Callable[[Trial], None], ...] = (
    tensors_of_a_model,
    numbers_of_a_prompt,
    rows_of_a_table,
    labels_that_look_the_same,
    keys_of_a_study,
    folders_of_others,
    columns_of_the_user,
    scores_of_others,
    odd_names,
    odd_outputs,
    odd_options,
    files_of_a_study,
    folders_that_go_away,
    interrupts,
    power_cuts,
    words_without_embedding,
)
"""Every kind."""
