"""Rows become lines, or an error that names the row."""

import pytest

from softstart.errors import SoftstartError
from softstart.gym.catalog import crossfit_catalog
from softstart.gym.lines import make_lines


def lines(entry, rows):
    return [keyed.line for keyed in make_lines(entry, rows, "rows")]


@pytest.mark.parametrize(
    ("value", "says"), [(4, "the label 4"), (-1, "the label -1"), (None, "the label None"), ([1], "[1]")]
)
def test_a_label_outside_the_verbalizer_names_its_row(value, says):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": value}]
    with pytest.raises(SoftstartError) as error:
        lines(crossfit_catalog()["ag_news"], rows)
    assert str(error.value).startswith("rows, row 2: ")
    assert says in str(error.value)
    assert "outside the verbalizer" in str(error.value)
