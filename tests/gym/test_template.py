"""Templates: paths, operations, and what a row lacks."""

import pytest

from softstart.errors import SoftstartError
from softstart.gym.template import Template, apply


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{a.b.1}", {"a": {"b": ["x", "y"]}}, "y"),
        ("{a.b|join:, }", {"a": [{"b": "x"}, {"b": "y"}]}, "x, y"),
        ("{{{n}}} {f}", {"n": 5.0, "f": 0.5}, "{5} 0.5"),
        ("{a b-c}", {"a b-c": "odd names"}, "odd names"),
        ("{a.b}", {"a.b": "flat"}, "flat"),
        ("{a|replace:x=}", {"a": "xyx"}, "y"),
        ("{a|clean}", {"a": "  b\\nc\r\n\td "}, "b c d"),
    ],
)
def test_templates(template, row, text):
    assert Template(template)(row) == text


@pytest.mark.parametrize(
    ("template", "row", "says"),
    [
        ("{b}", {"a": "x"}, "no field 'b'. The row has a."),
        ("{a}", {"a": None}, "field 'a' is empty"),
        ("{a}", {"a": ["x"]}, "holds a list where the template needs one text"),
        ("{a.b}", {"a": "x"}, "no field 'a.b'"),
        ("{a.3}", {"a": ["x"]}, "has only 1 items"),
        ("{a|int}", {"a": "x"}, "is not a number"),
        ("{a|join:x}", {"a": "x"}, "is not a list: nothing to join"),
    ],
)
def test_a_row_that_does_not_fit_a_template_says_why(template, row, says):
    with pytest.raises(SoftstartError) as error:
        Template(template)(row)
    assert says in str(error.value)


def test_operations_on_a_finished_text():
    assert apply(["line", "strip"], "\ta\nb ") == "a b"
