"""CSV whose cells no spreadsheet computes, and which reads back the same."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softstart.errors import SoftstartError
from softstart.storage.csv_files import csv_text, read_cell, read_csv, written_cell

texts = st.text(alphabet="=+-@'\t\r\nab1. ", max_size=6)


@given(texts)
def test_a_text_reads_back_the_same_and_is_no_formula(text):
    cell = written_cell(text)
    assert read_cell(cell) == text
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        float(cell)


def test_a_table_reads_back_the_same(tmp_path):
    table = pd.DataFrame({"=task": ["=cmd|' /C calc'!A0", "NA", "'-x"], "lr": [-0.5, 1e-3, float("nan")]})
    (tmp_path / "t.csv").write_text(csv_text(table), encoding="utf-8")
    with (tmp_path / "t.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert cells[:3] == ["'=task", "lr", "'=cmd|' /C calc'!A0"]
    pd.testing.assert_frame_equal(read_csv(tmp_path / "t.csv"), table)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b'a\n"', b"a,b\n1\n1,2,3\n"])
def test_what_is_no_table_is_one_line(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(SoftstartError, match=r"t\.csv: cannot read this table") as caught:
        read_csv(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
