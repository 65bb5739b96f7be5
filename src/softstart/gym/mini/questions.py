"""Question answering: extraction, multiple choice, closed book. One function is one task."""

from __future__ import annotations

from softstart.gym.mini.pairs import KEEPS, STAYS
from softstart.gym.mini.spec import Draw, text2text
from softstart.tiny.documents import an


def choices(d: Draw, right: str, wrong: list[str]) -> str:
    """The choices of a question, shuffled."""
    row = [right, *wrong]
    d.r.shuffle(row)
    return f"choices: {', '.join(row)}"


@text2text("qa/extraction", "QA-F1", options=3)
def find_person(d: Draw) -> tuple[str, str]:
    """Where one of three people is."""
    people, places = d.some(d.p.people, 3), d.some(d.w.places, 3)
    story = ", ".join(f"{p} {d.one(STAYS)} in the {x}" for p, x in zip(people, places, strict=True))
    i = d.r.randrange(3)
    return f"context: {story}. question: {people[i]}", places[i]


@text2text("qa/extraction", "QA-F1", options=3)
def find_owner(d: Draw) -> tuple[str, str]:
    """Who has one of three things."""
    people, things = d.some(d.p.people, 3), d.some(d.p.things, 3)
    story = " ".join(f"{p} {d.one(KEEPS)} {an(x)}." for p, x in zip(people, things, strict=True))
    i = d.r.randrange(3)
    return f"passage: {story} question: who {d.one(KEEPS)} the {things[i]}?", people[i]


@text2text("qa/extraction", "QA-F1", options=3)
def find_color(d: Draw) -> tuple[str, str]:
    """The color of one of three things."""
    things, colors = d.some(d.p.things, 3), d.some(d.w.colors, 3)
    story = ", ".join(an(f"{c} {x}") for x, c in zip(things, colors, strict=True))
    i = d.r.randrange(3)
    return f"context: {d.one(d.p.people)} owns {story}. item: {things[i]}", colors[i]


@text2text("qa/extraction", "QA-F1", options=2)
def find_receiver(d: Draw) -> tuple[str, str]:
    """Who received something."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.things)
    story = d.one([f"{p} sent the {x} to {q}.", f"{q} got the {x} from {p}.", f"{p} passed {q} the {x}."])
    return f"report: {story} {d.aside()}", q


@text2text("qa/extraction", "QA-F1", options=3)
def find_day(d: Draw) -> tuple[str, str]:
    """On which day it is the turn of somebody."""
    people, days = d.some(d.p.people, 3), d.some(d.w.days, 3)
    story = ", ".join(f"{p} on {x}" for p, x in zip(people, days, strict=True))
    i = d.r.randrange(3)
    return f"notice: {story}. question: {people[i]}", days[i]


@text2text("qa/multiple_choice", "ACC", options=4)
def choose_kind(d: Draw) -> tuple[str, str]:
    """Which choice is of the kind."""
    x = d.one(d.p.kinds)
    kind = d.p.kinds[x]
    wrong = d.some([y for y, k in d.p.kinds.items() if k != kind], 3)
    return f"question: {kind} {choices(d, x, wrong)}", x


@text2text("qa/multiple_choice", "ACC", options=3)
def choose_opposite(d: Draw) -> tuple[str, str]:
    """Which choice is the opposite."""
    x, y = d.r.choice(d.p.opposites)
    if d.coin():
        x, y = y, x
    wrong = d.some([v for pair in d.p.opposites for v in pair if v not in (x, y)], 2)
    return f"word: {x} {choices(d, y, wrong)}", y


@text2text("qa/multiple_choice", "ACC", options=3)
def choose_home(d: Draw) -> tuple[str, str]:
    """Which choice is the home of an animal."""
    x = d.one(d.p.animals)
    home = d.p.animals[x][1]
    wrong = d.some({f[1] for f in d.p.animals.values()} - {home}, 2)
    return f"item: {x} of {d.one(d.p.people)} {choices(d, home, wrong)}", home


@text2text("qa/multiple_choice", "ACC", options=4)
def choose_odd(d: Draw) -> tuple[str, str]:
    """Which choice does not belong."""
    kind = d.one(d.p.kinds.values())
    wrong = d.some(d.keys(d.p.kinds, kind), 3)
    x = d.one([y for y, k in d.p.kinds.items() if k != kind])
    return choices(d, x, wrong), x


@text2text("qa/multiple_choice", "ACC", options=3)
def choose_reaction(d: Draw) -> tuple[str, str]:
    """How somebody feels about what happened."""
    e, *others = d.some(d.p.feelings, 3)
    right, wrong = d.one(d.p.feelings[e]), [d.one(d.p.feelings[o]) for o in others]
    return f"context: {d.one(d.p.people)} {d.one(d.p.events[e])}. {choices(d, right, wrong)}", right


@text2text("qa/closed_book")
def main_city(d: Draw) -> tuple[str, str]:
    """The capital of a country."""
    land = d.one(d.p.countries)
    p, q = d.some(d.p.people, 2)
    return f"letter: dear {p}, {q} will see all of {land}.", d.p.countries[land][0]


@text2text("qa/closed_book")
def language_needed(d: Draw) -> tuple[str, str]:
    """The language of the country of a city."""
    city = d.one(d.p.cities)
    return f"post: {d.one(d.p.people)} moved to {city} and must speak.", d.p.countries[d.p.cities[city]][2]


@text2text("qa/closed_book")
def workplace(d: Draw) -> tuple[str, str]:
    """Where a job is done."""
    job = d.one(d.w.jobs)
    return f"question: {d.one(d.p.people)} is the new {job}, where to find the {job}?", d.w.jobs[job][0]


@text2text("qa/closed_book")
def color_of_food(d: Draw) -> tuple[str, str]:
    """The color of a food."""
    x = d.one(d.p.foods)
    return f"item: some {x} for {d.one(d.p.people)} and {d.one(d.p.people)}", d.p.foods[x][2]
