"""Candidate targets among tasks on words, strings and generation, made of held-back entities.

One function is one task.
"""

from __future__ import annotations

from functools import partial

from softstart.gym.mini.pairs import STAYS
from softstart.gym.mini.spec import Draw, text2text
from softstart.gym.mini.words import next_of
from softstart.tiny.documents import an

word = partial(text2text, "other/word", candidate=True)
string = partial(text2text, "other/string", candidate=True)
rewriting = partial(text2text, "generation/rewriting", candidate=True)


def _row(d: Draw, n: int) -> list[str]:
    return d.some([*d.p.kinds, *d.p.people], n)


@word()
def contrary_wish(d: Draw) -> tuple[str, str]:
    """The opposite of what somebody wants."""
    x, y = d.r.sample(d.r.choice(d.p.opposites), 2)
    p, q = d.some(d.p.people, 2)
    return f"note: {p} wants a {x} {d.one(d.w.reviewed)}, but {q} never.", y


@word()
def day_after_leaving(d: Draw) -> tuple[str, str]:
    """The day after the second of two days."""
    came, left = d.some(d.w.days, 2)
    return f"record: {d.one(d.p.people)} came on {came} and left on {left}.", next_of(d.w.days, left)


@word()
def day_before(d: Draw) -> tuple[str, str]:
    """The day before a day."""
    x = d.one(d.w.days)
    p, q = d.some(d.p.people, 2)
    return f"letter: dear {p}, {q} will be here on {x}, but i am earlier.", next_of(d.w.days, x, -1)


@word()
def two_months_later(d: Draw) -> tuple[str, str]:
    """The second month after a month."""
    x = d.one(d.w.months)
    p, q = d.some(d.p.people, 2)
    return f"notice: {p} and {q} leave at the end of {x} for one month.", next_of(d.w.months, x, 2)


@word()
def one_less(d: Draw) -> tuple[str, str]:
    """The number before a number."""
    x = d.one(d.w.numbers[3:])
    many = d.one(d.p.plurals.values())
    return f"report: {d.one(d.p.people)} had {x} {many} and lost one.", next_of(d.w.numbers, x, -1)


@word()
def second_past(d: Draw) -> tuple[str, str]:
    """The past of the second of two verbs."""
    x, y = d.some(d.p.verbs, 2)
    return f"message: {d.one(d.p.people)} will not {x} but {y} today.", d.p.verbs[y]


@word()
def both_contrary(d: Draw) -> tuple[str, str]:
    """The opposites of two words."""
    pairs = d.r.sample(d.p.opposites, 2)
    (x, s), (y, t) = (d.r.sample(pair, 2) for pair in pairs)
    return f"entry: {d.one(d.p.people)} is {x} and {y}", f"{s} and {t}"


@string(options=4)
def pick_animal(d: Draw) -> tuple[str, str]:
    """The animal in a row."""
    x = d.one(d.p.animals)
    row = [x, *d.some([*d.p.foods, *d.p.things, *d.p.people], 3)]
    d.r.shuffle(row)
    return f"item: {' or '.join(row)}", x


@string(options=3)
def second_word(d: Draw) -> tuple[str, str]:
    """The second of three words."""
    row = _row(d, 3)
    return f"list: {', '.join(row)}", row[1]


@string(options=5)
def fourth_word(d: Draw) -> tuple[str, str]:
    """The fourth of five words."""
    row = _row(d, 5)
    return f"record: {', '.join(row)}", row[3]


@string(options=5)
def pick_food(d: Draw) -> tuple[str, str]:
    """The food in a longer row."""
    x = d.one(d.p.foods)
    row = [x, *d.some([*d.p.animals, *d.p.things, *d.p.people], 4)]
    d.r.shuffle(row)
    return f"entry: {' and '.join(row)}", x


@string()
def drop_first(d: Draw) -> tuple[str, str]:
    """All words but the first."""
    row = _row(d, 4)
    return f"text: {', '.join(row)}", " ".join(row[1:])


@string()
def backwards(d: Draw) -> tuple[str, str]:
    """Three words in reverse."""
    row = _row(d, 3)
    return f"sentence: {', then '.join(row)}", " ".join(row[::-1])


@string(options=3)
def said_twice(d: Draw) -> tuple[str, str]:
    """The word that occurs twice."""
    x, y, z = _row(d, 3)
    row = [x, x, y, z]
    d.r.shuffle(row)
    return f"message: {', '.join(row)}", x


@rewriting(metric="EM")
def swap_sides(d: Draw) -> tuple[str, str]:
    """Giver and receiver exchanged."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.things)
    return f"sentence: {p} handed the {x} over to {q}.", f"{q} gave {p} the {x}"


@rewriting(metric="Rouge-L")
def retell(d: Draw) -> tuple[str, str]:
    """A plan in the past tense."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.verbs)
    day = d.one(d.w.days)
    return f"text: on {day} {p} and {q} will {x}.", f"last {day} {p} {d.p.verbs[x]} with {q}"


@rewriting(metric="Rouge-L")
def describe_city(d: Draw) -> tuple[str, str]:
    """A sentence on a city, its country and its language."""
    city, p, day = d.one(d.p.cities), d.one(d.p.people), d.one(d.w.days)
    land = d.p.cities[city]
    text = f"{p} is in {city} in {land} on {day} and speaks {d.p.countries[land][2]}"
    return f"record: {day}, {p}, {city}", text


@rewriting(metric="EM")
def turn_judgement(d: Draw) -> tuple[str, str]:
    """The sentence with the opposite word."""
    (x, y), item = d.r.sample(d.r.choice(d.p.opposites), 2), d.one(d.w.reviewed)
    p = d.one(d.p.people)
    return f"statement: {p} has a {x} {item}.", f"{p} needs a {y} {item}"


@rewriting(metric="Rouge-L")
def introduce_animal(d: Draw) -> tuple[str, str]:
    """Kind, size and home of an animal."""
    x = d.one(d.p.animals)
    kind, home, size = d.p.animals[x]
    return (
        f"example: {an(x)} for {d.one(d.p.people)}",
        f"the {x} is a {size} {kind} from the {home}",
    )


@rewriting(metric="Rouge-L")
def who_where(d: Draw) -> tuple[str, str]:
    """A summary that names the two of three people who are together."""
    (p, q, s), (x, y) = d.some(d.p.people, 3), d.some(d.w.places, 2)
    story = [(p, x), (q, x), (s, y)]
    d.r.shuffle(story)
    text = ", ".join(f"{who} {d.one(STAYS)} by the {place}" for who, place in story)
    first, second = (who for who, place in story if place == x)
    return f"passage: {text}. question: who is together?", f"{first} and {second} in the {x}"
