"""Every entry of the catalog against a literal reading of the fact sheet, on random rows."""

import json
import random
import re
from functools import cache

import numpy as np
import pytest
import yaml

from helpers.shared import SHARED
from softstart.gym.catalog import crossfit_catalog, published_checksums
from softstart.gym.lines import make_lines, pool_and_test

FACTS = SHARED / "gym" / "tasks.yaml" if SHARED else None
pytestmark = pytest.mark.skipif(FACTS is None or not FACTS.is_file(), reason="shared/gym is not here")

PIECES = [
    "red",
    "Blue",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\\n",
    "'",
    "é",
    ",",
    "_comma_",
    "<mask>",
    "[X]",
    "[Y]",
]


@cache
def sheet():
    return {task["name"]: task for task in yaml.load(FACTS.read_text("utf-8"), Loader=yaml.CSafeLoader)}


def literal(name, text, argument, row):
    """One operation of the fact sheet's legend."""
    if name == "clean":
        text = text.strip().replace("\n", " ").replace("\\n", " ").replace("\r", " ").replace("\t", " ")
        return " ".join(text.split())
    plain = {
        "ws": lambda: " ".join(text.split()),
        "nl": lambda: text.replace("\n", " "),
        "nl_n": lambda: text.replace("\n", " [n] "),
        "nl_cr_tab": lambda: re.sub("[\n\r\t]", " ", text),
        "crlf": lambda: text.replace("\r\n", " "),
        "escnl": lambda: text.replace("\\n", " "),
        "strip": lambda: text.strip(),
        "strip_sq": lambda: text.strip("'"),
        "lower": lambda: text.lower(),
        "nosp": lambda: text.replace(" ", ""),
        "comma": lambda: text.replace("_comma_", ","),
        "join": lambda: argument.join(text),
        "int": lambda: int(text),
        "plus1": lambda: text + 1,
        "lit": lambda: text.replace(*argument.split("=")),
        "sub": lambda: text.replace(argument.split("=")[0], row[argument.split("=")[1]]),
        "slice": lambda: text[row[argument.split(":")[0]] : row[argument.split(":")[1]]],
        "cutprefix": lambda: text[len(argument) :] if text.startswith(argument) else text,
    }
    return plain[name]()


def operate(value, operations, row):
    for operation in operations:
        name, _, argument = operation.partition(":")
        value = literal(name, value, argument, row)
    return value


def walk(row, path):
    for step in path.split("."):
        row = row[int(step)] if isinstance(row, list) else row[step]
    return row


def filled(template, row, capitals):
    def fill(match):
        path, *operations = match[1].split("|")
        value = capitals[path] if path in capitals else walk(row, path)
        return str(operate(value, operations, row))

    return re.sub(r"\{([^{}]*)\}", fill, template)


def expected(facts, rows):
    """The lines of simple entries, those without a custom step."""
    random_state = np.random.RandomState(42)
    for row in rows:
        if not all(holds(row, *condition) for condition in facts.get("keep_if", [])):
            continue
        capitals = {}
        if swap := facts.get("pair_swap"):
            good_first = random_state.random_sample() > 0.5
            pair = [row[swap["good"]], row[swap["bad"]]]
            capitals = dict(zip(("FIRST", "SECOND"), pair if good_first else pair[::-1], strict=True))
            capitals["LABEL"] = facts["labels"][0 if good_first else 1]
        elif facts.get("labels") and facts.get("label_field"):
            capitals["LABEL"] = facts["labels"][row[facts["label_field"]]]
        texts, letters = [], []
        if choices := facts.get("choices"):
            texts = walk(row, choices["texts"]) if "texts" in choices else [row[f] for f in choices["fields"]]
            texts = [operate(text, choices.get("text_ops", []), row) for text in texts]
            letters = choices["letters"]
            letters = walk(row, letters) if isinstance(letters, str) else letters
            pairs = zip(letters, texts, strict=False)
            capitals["CHOICES"] = "".join(
                choices["item"].replace("{L}", letter).replace("{T}", text) for letter, text in pairs
            )
        if answer := facts.get("answer"):
            texts = walk(row, answer["of"]) if "of" in answer else texts
            texts = [row[f] for f in answer["of_fields"]] if "of_fields" in answer else texts
            capitals["ANSWER"] = (
                row[answer["field"]] if "field" in answer
                else texts[letters.index(row[answer["letter_equals"]])] if "letter_equals" in answer
                else texts[int(row[answer["index"]])] if "index" in answer
                else texts[int(row[answer["index1"]]) - 1]
            )  # fmt: skip
        if answers := facts.get("answers"):
            capitals["ANSWERS"] = "\t".join(all_answers(answers, row))
        line = filled(facts["input_template"], row, capitals)
        yield operate(line, facts.get("input_ops", []), row), filled(facts["output_template"], row, capitals)


def all_answers(answers, row):
    if answers["field"] == "Parses.Answers[].AnswersName[][]":
        values = [
            name for parse in row["Parses"]["Answers"] for names in parse["AnswersName"] for name in names
        ]
        return sorted(set(values))
    if answers["field"] == "output[].answer":
        values = [item["answer"] for item in row["output"]]
    else:
        values = walk(row, answers["field"])
    values = list(dict.fromkeys(values)) if answers.get("order") == "set" else list(values)
    values = [x for x in values if x] if answers.get("drop_empty") else values
    return [operate(x, answers.get("item_ops", []), row) for x in values][
        : 1 if answers.get("first_only") else None
    ]


def holds(row, name, operator, value):
    has = row[name]
    return {
        "!=": lambda: has != value,
        "<=": lambda: has <= value,
        ">=": lambda: has >= value,
        "==": lambda: has == value,
        "is_integer": lambda: float(has).is_integer(),
        "nonempty_after": lambda: bool(operate(has, value, row)),
    }[operator]()


class Rows:
    """Random rows with the columns that an entry reads."""

    def __init__(self, facts, seed):
        self.facts, self.random = facts, random.Random(seed)

    def text(self):
        return "".join(self.random.choices(PIECES, k=self.random.randint(1, 9)))

    def texts(self, low=0):
        return [self.text() for _ in range(self.random.randint(low, 4))]

    def row(self):
        facts, row = self.facts, {}
        templates = facts["input_template"] + facts["output_template"]
        for path, *operations in (m.split("|") for m in re.findall(r"\{([^{}]*)\}", templates)):
            if not path.isupper():
                joined = any(op.startswith("join") for op in operations)
                self.put(
                    row,
                    path,
                    self.texts(1) if joined or path in ("candidates.0", "answers.0") else self.text(),
                )
            for op in operations:
                if op.startswith("slice:"):
                    row |= {field: self.random.randint(-1, 5) for field in op.split(":")[1:]}
                if op.startswith("sub:"):
                    row[op.split("=")[1]] = self.text()
        if facts.get("labels") and facts.get("label_field"):
            known = facts["labels"]
            row[facts["label_field"]] = self.random.choice(
                list(known) if isinstance(known, dict) else range(len(known))
            )
        if (templates.count("{label}") and facts.get("labels")) or "plus1" in templates:
            row["label"] = self.random.randint(0, 1)
        row |= {name: self.text() for name in facts.get("pair_swap", {}).values()}
        self.choices(row)
        if answers := facts.get("answers"):
            self.answers(row, answers["field"])
        for name, operator, value in facts.get("keep_if", []):
            if operator in ("!=", "<=", ">="):
                row[name] = self.random.choice([value, value + 1, max(value - 1, -1)])
                if row[name] != -1 and holds(row, name, operator, value):
                    row[name] = min(row[name], len(facts["labels"]) - 1)
            if operator == "is_integer":
                row[name] = self.random.choice([1.0, 2.0, 3.5])
            if operator == "==":
                row[name] = self.random.choice([value, "other"])
        if "star" in templates:
            row["star"] = self.random.randint(1, 5)
        return row

    def choices(self, row):
        choices, answer = self.facts.get("choices", {}), self.facts.get("answer", {})
        n = len(choices["letters"]) if isinstance(choices.get("letters"), list) else 3
        if "texts" in choices:
            self.put(row, choices["texts"], [self.text() for _ in range(n)])
        fields = [*choices.get("fields", []), *answer.get("of_fields", [])]
        row |= {name: self.text() for name in fields}
        n = len(answer.get("of_fields", [])) or n
        if answer.get("of"):
            n = 2
            self.put(row, answer["of"], [self.text() for _ in range(n)])
        if isinstance(choices.get("letters"), str):
            self.put(row, choices["letters"], list("ABC"))
        at = self.random.randrange(n)
        for key, value in (
            ("letter_equals", "ABCDE"[at]),
            ("index", str(at)),
            ("index1", str(at + 1)),
            ("field", self.text()),
        ):
            if key in answer:
                row[answer[key]] = value

    def answers(self, row, path):
        if path.startswith("Parses"):
            row["Parses"] = {"Answers": [{"AnswersName": [self.texts(), self.texts()]} for _ in range(2)]}
        elif path == "output[].answer":
            row["output"] = [{"answer": self.random.choice([text, text, ""])} for text in self.texts(1) * 2]
        elif self.facts["answers"].get("keys"):
            self.put(row, path, dict.fromkeys(self.texts(1), 1))
        else:
            self.put(row, path, self.texts(1) * 2)

    def put(self, row, path, value):
        *outer, last = path.split(".")
        if last.isdigit():
            last, value = outer.pop(), [self.text(), self.text()]
        for step in outer:
            row = row.setdefault(step, {})
        row[last] = value


def simple_tasks():
    simple = [(name, facts) for name, facts in (sheet() if FACTS else {}).items() if not facts["custom_step"]]
    return [(name, "v2") for name, _ in simple] + [(name, "v1") for name, f in simple if "v1_differs" in f]


@pytest.mark.parametrize(("name", "version"), simple_tasks())
def test_rows_become_the_lines_of_the_fact_sheet(name, version):
    facts = sheet()[name]
    facts = facts | (facts["v1_differs"] if version == "v1" else facts.get("published_md5_variant", {}))
    rows = [Rows(facts, seed).row() for seed in range(12)]
    entry = crossfit_catalog()[name].version(version)
    lines = [keyed.line for keyed in make_lines(entry, rows, "rows")]
    assert lines == list(expected(facts, rows)), name
    assert lines


def test_the_catalog_holds_the_facts():
    catalog = crossfit_catalog()
    assert set(catalog) == set(sheet())
    for name, facts in sheet().items():
        entry = catalog[name]
        assert (entry.kind, entry.metric, entry.shots) == (facts["kind"], facts["metric"], facts["shots"]), (
            name
        )
        assert entry.category == "/".join(facts["ontology"]), name
        hub = (facts["hub_id_now"], facts["hub_config_now"])
        assert (entry.dataset.id, entry.dataset.config) in (hub, (None, None)), name
        assert bool(entry.unstable) == bool(facts["not_byte_reproducible_because"]), name
        words = facts.get("labels") or []
        assert entry.words == tuple(words.values() if isinstance(words, dict) else words), name


@pytest.mark.parametrize("n", [7, 100, 1234])
def test_pool_and_test_set_are_cut_as_the_fact_sheet_says(n):
    for name, facts in sheet().items():
        rule = facts["split"]
        rows = {
            split: [f"{split} {i}" for i in range(n)]
            for split in (rule.get("train"), rule.get("test"), rule.get("source"))
        }
        if rule["mode"] == "two_splits":
            pool, test = rows[rule["train"]], list(rows[rule["test"]])
            if sub := rule.get("test_subsample"):
                np.random.RandomState(42).shuffle(test)
                test = test[: int(sub["fraction"] * n)]
        else:
            lines = list(rows[rule["source"]])
            np.random.RandomState(42).shuffle(lines)
            spans = [
                [n if x == "n" else x if isinstance(x, int) else int(float(x[4:-3]) * n) for x in rule[part]]
                for part in ("train_slice", "test_slice")
            ]
            pool, test = (lines[a:b] for a, b in spans)
        assert pool_and_test(crossfit_catalog()[name].splits, rows.__getitem__) == (pool, test), name


@pytest.mark.parametrize(("version", "file"), [("v2", "md5.csv"), ("v1", "md5_v1.csv")])
def test_the_published_checksums_are_whole(version, file):
    published = dict(line.split(",") for line in (SHARED / "gym" / file).read_text().split()[1:])
    assert len(published) == 2400
    assert {k: v for sums in published_checksums(version).values() for k, v in sums.items()} == published


def test_settings_are_those_that_were_run():
    from softstart.gym.settings import shipped_settings

    run = json.loads((SHARED / "paper" / "settings.json").read_text())
    study = shipped_settings("study")
    assert {n: (list(s.source), list(s.target)) for n, s in study.items()} == {
        n: (s["source"], s["target"]) for n, s in run.items()
    }
    partitions = json.loads((SHARED / "gym" / "partitions.json").read_text())["crossfit"]
    crossfit = shipped_settings("crossfit")
    assert set(crossfit) == set(partitions)
    for name, parts in partitions.items():
        assert list(crossfit[name].source) == parts["train"]
        assert list(crossfit[name].target) == (parts["test"] or parts["dev"])
        assert list(crossfit[name].dev) == (parts["dev"] if parts["test"] else [])
