"""Words and strings: forms, neighbors in a row, picking, short rewriting. One function is one task."""

from __future__ import annotations

from collections.abc import Sequence

from softstart.gym.mini.pairs import OLDER, STAYS
from softstart.gym.mini.spec import Draw, text2text
from softstart.tiny.documents import an


def _any(d: Draw, n: int) -> list[str]:
    return d.some([*d.p.kinds, *d.p.people, *d.p.verbs, *d.p.plurals], n)


def next_of(names: Sequence[str], x: str, by: int = 1) -> str:
    """The name that many places after ``x``, beginning again at the end."""
    return names[(names.index(x) + by) % len(names)]


@text2text("other/word")
def antonym(d: Draw) -> tuple[str, str]:
    """The opposite of the last word."""
    x, y = d.r.choice(d.p.opposites)
    if d.coin():
        x, y = y, x
    return f"sentence: for {d.one(d.p.people)} the {d.one(d.w.reviewed)} is too {x}.", y


@text2text("other/word")
def plural(d: Draw) -> tuple[str, str]:
    """The plural of a noun."""
    x = d.one(d.p.plurals)
    return f"item: {an(x)} from {d.one(d.p.people)}", d.p.plurals[x]


@text2text("other/word")
def past_form(d: Draw) -> tuple[str, str]:
    """The past of a verb."""
    x = d.one(d.p.verbs)
    p, q = d.some(d.p.people, 2)
    return f"sentence: {p} and {q} will {x} soon.", d.p.verbs[x]


@text2text("other/word")
def month_after(d: Draw) -> tuple[str, str]:
    """The month after a month."""
    x = d.one(d.w.months)
    return f"entry: {d.one(d.p.people)} stays for all of {x}.", next_of(d.w.months, x)


@text2text("other/word")
def one_more(d: Draw) -> tuple[str, str]:
    """The number after a number."""
    x = d.one(d.w.numbers[:-1])
    return f"record: {d.one(d.p.people)} holds {x} {d.one(d.p.plurals.values())}.", next_of(d.w.numbers, x)


@text2text("other/word")
def synonym(d: Draw) -> tuple[str, str]:
    """A word that means the same."""
    x, y = d.r.choice(d.p.synonyms)
    if d.coin():
        x, y = y, x
    return f"example: {d.one(d.p.people)} wrote {x} for {d.one(d.p.people)}.", y


@text2text("other/string", options=4)
def first_word(d: Draw) -> tuple[str, str]:
    """The first of four words."""
    row = _any(d, 4)
    return f"words: {' '.join(row)}", row[0]


@text2text("other/string", options=4)
def last_word(d: Draw) -> tuple[str, str]:
    """The last of four words."""
    row = _any(d, 4)
    return f"list: {', '.join(row)}", row[-1]


@text2text("other/string", options=4)
def pick_color(d: Draw) -> tuple[str, str]:
    """The color among four words."""
    x = d.one(d.w.colors)
    row = [x, *_any(d, 3)]
    d.r.shuffle(row)
    return f"words: {', '.join(row)}", x


@text2text("other/string", options=4)
def pick_number(d: Draw) -> tuple[str, str]:
    """The number among four words."""
    x = d.one(d.w.numbers)
    row = [x, *_any(d, 3)]
    d.r.shuffle(row)
    return f"input: {' '.join(row)}", x


@text2text("other/string")
def swap_words(d: Draw) -> tuple[str, str]:
    """Two words in the other order."""
    x, y = _any(d, 2)
    return f"input: {x} {y}", f"{y} {x}"


@text2text("other/string")
def say_twice(d: Draw) -> tuple[str, str]:
    """The first word, twice."""
    x, y = _any(d, 2)
    return f"word: {x} and not {y}", f"{x} {x}"


@text2text("generation/rewriting")
def turn_around(d: Draw) -> tuple[str, str]:
    """The same comparison from the other side."""
    (p, q), (up, down) = d.some(d.p.people, 2), d.r.choice(OLDER)
    if d.coin():
        up, down = down, up
    return f"sentence: {p} is {up} than {q}.", f"{q} is {down} than {p}"


@text2text("generation/rewriting")
def conclude(d: Draw) -> tuple[str, str]:
    """What follows from sending."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.things)
    return f"text: {p} sent the {x} to {q}.", f"{q} has the {x}"


@text2text("generation/rewriting", "Rouge-L")
def join_places(d: Draw) -> tuple[str, str]:
    """One sentence about two people in one place."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.w.places)
    return (
        f"text: {p} {d.one(STAYS)} in the {x}, {q} {d.one(STAYS)} in the {x}, too.",
        f"{p} and {q} are in the {x}",
    )


@text2text("generation/rewriting", "Rouge-L")
def report_speech(d: Draw) -> tuple[str, str]:
    """What somebody says about themselves, reported by someone else."""
    p, e = d.one(d.p.people), d.one(d.p.feelings)
    x, day = d.one(d.p.feelings[e]), d.one(d.w.days)
    return f"message: {p}: on {day} i am always {x}.", f"{p} is {x} on {day}"


@text2text("generation/rewriting", "Rouge-L")
def name_colors(d: Draw) -> tuple[str, str]:
    """A sentence from a row of things and their colors."""
    x, y = d.some(d.p.things, 2)
    c, e = d.some(d.w.colors, 2)
    return f"list: {x}, {c}, {y}, {e}", f"the {x} is {c} and the {y} is {e}"


@text2text("generation/rewriting", "Rouge-L")
def repeat_many(d: Draw) -> tuple[str, str]:
    """One thing becomes several."""
    x, n = d.one(d.p.plurals), d.one(d.w.numbers[2:])
    return (
        f"note: {d.one(d.p.people)} has {an(x)}, and soon {n}.",
        f"soon there are {n} {d.p.plurals[x]}",
    )
