"""Candidate targets among question answering tasks, made of held-back entities. One function is one task."""

from __future__ import annotations

from functools import partial

from softstart.gym.mini.pairs import KEEPS, STAYS
from softstart.gym.mini.questions import choices
from softstart.gym.mini.spec import Draw, text2text
from softstart.tiny.documents import an

extraction = partial(text2text, "qa/extraction", "QA-F1", candidate=True)
multiple_choice = partial(text2text, "qa/multiple_choice", "ACC", candidate=True, options=3)
closed_book = partial(text2text, "qa/closed_book", candidate=True)


def _in_any_order(d: Draw, sentences: list[str]) -> str:
    d.r.shuffle(sentences)
    return " ".join(sentences)


@extraction(options=2)
def find_thing(d: Draw) -> tuple[str, str]:
    """Where a thing is: with its owner, who is somewhere."""
    people, things, places = d.some(d.p.people, 2), d.some(d.p.things, 2), d.some(d.w.places, 2)
    story = [f"{p} {d.one(KEEPS)} the {x}" for p, x in zip(people, things, strict=True)]
    story += [f"{p} {d.one(STAYS)} in the {x}" for p, x in zip(people, places, strict=True)]
    d.r.shuffle(story)
    i = d.r.randrange(2)
    return f"context: {', '.join(story)}. question: where to find the {things[i]}?", places[i]


@extraction(options=3)
def find_sender(d: Draw) -> tuple[str, str]:
    """Who sent something; an unrelated owner is mentioned, too."""
    (p, q, s), (x, y) = d.some(d.p.people, 3), d.some(d.p.things, 2)
    story = [
        d.one([f"{p} sent the {x} to {q}.", f"{q} got the {x} from {p}."]),
        f"{s} {d.one(KEEPS)} the {y}.",
    ]
    return f"report: {_in_any_order(d, story)}", p


@extraction(options=3)
def find_buyer(d: Draw) -> tuple[str, str]:
    """Which of three people bought a thing of a color."""
    people, colors, x = d.some(d.p.people, 3), d.some(d.w.colors, 3), d.one(d.p.things)
    story = ", ".join(f"{p} wants a {c} {x}" for p, c in zip(people, colors, strict=True))
    i = d.r.randrange(3)
    return f"notice: {story}. question: who wants {colors[i]}?", people[i]


@extraction(options=2)
def find_last_place(d: Draw) -> tuple[str, str]:
    """Where somebody is after two moves, in either order."""
    p, (x, y) = d.one(d.p.people), d.some(d.w.places, 2)
    story = d.one([
        f"first {p} went to the {x}, then to the {y}", f"{p} went to the {y} after the {x}",
        f"before {p} went to the {y}, {p} was in the {x}", f"{p} left the {x} and went to the {y}",
    ])  # fmt: skip
    return f"passage: {story}. {d.aside()} question: where is {p} now?", y


@extraction(options=3)
def find_by_kind(d: Draw) -> tuple[str, str]:
    """Who has the thing of a kind."""
    kinds = d.some(set(d.p.things.values()), 3)
    people = d.some(d.p.people, 3)
    story = ", ".join(
        f"{p} came with {an(d.one(d.keys(d.p.things, kind)))}" for p, kind in zip(people, kinds, strict=True)
    )
    i = d.r.randrange(3)
    return f"context: {story}. question: who has {an(kinds[i])}?", people[i]


@extraction(options=2)
def find_praised(d: Draw) -> tuple[str, str]:
    """Which of two things is praised."""
    x, y = d.some(d.w.reviewed, 2)
    story = [f"the {x} was {d.one(d.p.positive)}.", f"the {y} was {d.one(d.p.negative)}."]
    return f"review: {_in_any_order(d, story)} question: what did {d.one(d.p.people)} like?", x


@extraction(options=3)
def find_amount(d: Draw) -> tuple[str, str]:
    """How many of one of three things there are."""
    things, numbers = d.some(d.p.plurals.values(), 3), d.some(d.w.numbers[2:], 3)
    story = ", ".join(f"{n} {x}" for n, x in zip(numbers, things, strict=True))
    i = d.r.randrange(3)
    return f"list: {story} of {d.one(d.p.people)}. item: {things[i]}", numbers[i]


@multiple_choice()
def choose_synonym(d: Draw) -> tuple[str, str]:
    """Which choice means the same."""
    x, y = d.r.sample(d.r.choice(d.p.synonyms), 2)
    wrong = d.some([v for pair in d.p.synonyms for v in pair if x not in pair], 2)
    return f"sentence: {d.one(d.p.people)} wrote {x}. {choices(d, y, wrong)}", y


@multiple_choice()
def choose_taste(d: Draw) -> tuple[str, str]:
    """Which food tastes that way."""
    x = d.one(d.p.foods)
    taste = d.p.foods[x][1]
    wrong = d.some([y for y, f in d.p.foods.items() if f[1] != taste], 2)
    return f"{choices(d, x, wrong)} question: {d.one(d.p.people)} wants something {taste}", x


@multiple_choice()
def choose_country(d: Draw) -> tuple[str, str]:
    """In which of three countries a city is."""
    city = d.one(d.p.cities)
    land = d.p.cities[city]
    wrong = d.some(set(d.p.countries) - {land}, 2)
    return f"question: {d.one(d.p.people)} is in {city} today. {choices(d, land, wrong)}", land


@multiple_choice()
def choose_emotion(d: Draw) -> tuple[str, str]:
    """Which of three emotions an event brings."""
    e, *wrong = d.some(d.p.events, 3)
    said = d.one([*d.p.events[e], *(f"was {x}" for x in d.p.feelings[e])])
    return f"{choices(d, e, wrong)} context: {d.one(d.p.people)} {said}.", e


@multiple_choice()
def choose_noun(d: Draw) -> tuple[str, str]:
    """Which noun belongs to the topic."""
    topic, *others = d.some(d.p.topics, 3)
    x = d.one(d.p.topics[topic])
    wrong = [d.one(d.p.topics[other]) for other in others]
    return f"{choices(d, x, wrong)} question: {d.one(d.p.people)} knows all about {topic}", x


@multiple_choice()
def choose_language(d: Draw) -> tuple[str, str]:
    """Which language somebody from a city speaks."""
    city = d.one(d.p.cities)
    land = d.p.cities[city]
    wrong = [d.p.countries[other][2] for other in d.some(set(d.p.countries) - {land}, 2)]
    right = d.p.countries[land][2]
    return f"letter: my friend {d.one(d.p.people)} is from {city}. {choices(d, right, wrong)}", right


@multiple_choice()
def choose_past(d: Draw) -> tuple[str, str]:
    """Which past belongs to the verb."""
    x, *others = d.some(d.p.verbs, 3)
    wrong = [d.p.verbs[other] for other in others]
    return f"sentence: {d.one(d.p.people)} must {x}. {choices(d, d.p.verbs[x], wrong)}", d.p.verbs[x]


@multiple_choice()
def choose_contrary(d: Draw) -> tuple[str, str]:
    """Which choice somebody wants who does not want a thing as it is."""
    x, y = d.r.sample(d.r.choice(d.p.opposites), 2)
    wrong = d.some([v for pair in d.p.opposites for v in pair if x not in pair], 2)
    return f"note: never {x}, says {d.one(d.p.people)}. {choices(d, y, wrong)}", y


@closed_book()
def other_city(d: Draw) -> tuple[str, str]:
    """The other city of the country of a city."""
    here, there = d.r.sample(d.p.countries[d.one(d.p.countries)][:2], 2)
    p, q = d.some(d.p.people, 2)
    return f"post: {p} knows {here}, now {q} is in the other city of this country.", there


@closed_book()
def capital_of_speakers(d: Draw) -> tuple[str, str]:
    """The capital of the country of a language."""
    capital, _, language = d.p.countries[d.one(d.p.countries)]
    p, q = d.some(d.p.people, 2)
    return f"diary: {p} heard {q} speak {language}, so to the capital.", capital


@closed_book()
def country_of_speaker(d: Draw) -> tuple[str, str]:
    """The country of a language."""
    land = d.one(d.p.countries)
    p, q = d.some(d.p.people, 2)
    return f"message: only {p} and {q} can speak {d.p.countries[land][2]} here.", land


@closed_book()
def home_of_lost(d: Draw) -> tuple[str, str]:
    """Where to look for an animal."""
    x = d.one(d.p.animals)
    return (
        f"notice: {d.one(d.p.people)} lost {an(x)} on {d.one(d.w.days)}, look at home.",
        d.p.animals[x][1],
    )


@closed_book()
def color_of_second(d: Draw) -> tuple[str, str]:
    """The color of the second of two foods."""
    x, y = d.some(d.p.foods, 2)
    return f"item: no {x}, just {y} for {d.one(d.p.people)}", d.p.foods[y][2]


@closed_book()
def season_later(d: Draw) -> tuple[str, str]:
    """The season after the season of a month."""
    month = d.one(d.w.months)
    order = list(dict.fromkeys(d.w.seasons[m] for m in d.w.months))
    p, q = d.some(d.p.people, 2)
    text = f"record: {p} came in {month}, {q} a season later."
    return text, order[(order.index(d.w.seasons[month]) + 1) % 4]
