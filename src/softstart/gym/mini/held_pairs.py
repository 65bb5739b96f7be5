"""Candidate targets among entailment, fact checking and paraphrase, made of held-back entities.

One function is one task.
"""

from __future__ import annotations

from functools import partial

from softstart.gym.mini.pairs import KEEPS, STAYS
from softstart.gym.mini.spec import Draw, classification
from softstart.tiny.documents import an

entailment = partial(classification, "nli", metric="ACC", candidate=True)
checking = partial(classification, "fact_checking", candidate=True)
paraphrase = partial(classification, "paraphrase", metric="ACC", candidate=True)

ALIKE = {"same": "yes", "different": "no"}


def _either(d: Draw, key: str, values: dict[str, str], x: str) -> str:
    """The value of ``x``, or for a claim that does not hold another one."""
    return values[x] if key in ("yes", "true") else d.one(values.values(), values[x])


@entailment(("yes", "no"))
def entail_gift(d: Draw, key: str) -> str:
    """Who has a thing after it was passed on, with an aside."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.things)
    story = d.one([f"{p} passed the {x} to {q}.", f"{q} got the {x} from {p}.", f"{p} sent the {x} to {q}."])
    return f"premise: {story} {d.aside()} hypothesis: {q if key == 'yes' else p} has the {x}."


@entailment(("yes", "maybe", "no"))
def entail_move(d: Draw, key: str) -> str:
    """Where somebody is after moving, with a third answer for people not spoken of."""
    (p, q), (x, y) = d.some(d.p.people, 2), d.some(d.w.places, 2)
    who, where = (q, y) if key == "maybe" else (p, y if key == "yes" else x)
    return f"premise: {p} left the {x} for the {y}. hypothesis: now {who} is in the {where}."


@entailment(("yes", "no"))
def entail_kind(d: Draw, key: str) -> str:
    """Whether what somebody has is of a kind."""
    x = d.one(d.p.things)
    kind = _either(d, key, dict(d.p.things), x)
    p = d.one(d.p.people)
    return f"premise: {p} {d.one(KEEPS)} {an(x)}. {d.aside()} hypothesis: {p} has {an(kind)}."


@entailment({"yes": "true", "no": "false"})
def entail_city(d: Draw, key: str) -> str:
    """Whether somebody in a city is in a country."""
    city, p = d.one(d.p.cities), d.one(d.p.people)
    return (
        f"premise: {p} {d.one(STAYS)} in {city}. hypothesis: {p} is in {_either(d, key, d.p.cities, city)}."
    )


@entailment(("yes", "no"))
def entail_chain(d: Draw, key: str) -> str:
    """Whether a thing is where its owner is."""
    people, things, places = d.some(d.p.people, 2), d.some(d.p.things, 2), d.some(d.w.places, 2)
    story = " ".join(
        f"{p} is in the {y} with {an(x)}." for p, x, y in zip(people, things, places, strict=True)
    )
    return f"premise: {story} hypothesis: the {things[0]} is in the {places[key == 'no']}."


@entailment({"yes": "right", "no": "wrong"})
def entail_feeling(d: Draw, key: str) -> str:
    """Whether somebody feels what follows from their day."""
    e, p = d.one(d.p.events), d.one(d.p.people)
    named = e if key == "yes" else d.one(d.p.events, e)
    happened = d.one([*d.p.events[e], *(f"was {x}" for x in d.p.feelings[e])])
    return f"premise: {p} {happened}. {d.aside()} hypothesis: {p} feels {named}."


@entailment(("yes", "no"))
def entail_color(d: Draw, key: str) -> str:
    """Whether the thing of one of two people has a color."""
    people, things, colors = d.some(d.p.people, 2), d.some(d.p.things, 2), d.some(d.w.colors, 2)
    story = " and ".join(
        f"{p} {d.one(KEEPS)} a {c} {x}" for p, x, c in zip(people, things, colors, strict=True)
    )
    i = d.r.randrange(2)
    c = colors[i if key == "yes" else 1 - i]
    return f"premise: {story}. hypothesis: the {things[i]} of {people[i]} is {c}."


@checking({"true": "real", "false": "fake"})
def fact_home(d: Draw, key: str) -> str:
    """Whether an animal lives there, under arbitrary label words."""
    x = d.one(d.p.animals)
    home = _either(d, key, {x: f[1] for x, f in d.p.animals.items()}, x)
    return f"claim: {d.one(d.p.people)} went to the {home} and found {an(x)} at home."


@checking(("true", "false"))
def claim_taste(d: Draw, key: str) -> str:
    """Whether food tastes that way."""
    x = d.one(d.p.foods)
    taste = _either(d, key, {x: f[1] for x, f in d.p.foods.items()}, x)
    return f"claim: {d.one(d.p.people)} had {x} on {d.one(d.w.days)}, and it was {taste}."


@checking({"true": "right", "false": "wrong"})
def claim_city(d: Draw, key: str) -> str:
    """Whether a city is in a country."""
    city = d.one(d.p.cities)
    return f"statement: {d.one(d.p.people)} lives in {city}, so in {_either(d, key, d.p.cities, city)}."


@checking(("true", "false"))
def claim_legs(d: Draw, key: str) -> str:
    """Whether an animal has that number of legs."""
    x = d.one(d.p.animals)
    legs = _either(d, key, {x: d.w.legs[f[0]] for x, f in d.p.animals.items()}, x)
    return f"note: {d.one(d.p.people)} saw {legs} legs under the {x} of {d.one(d.p.people)}."


@checking(("yes", "no"))
def claim_contrary(d: Draw, key: str) -> str:
    """Whether two words are opposites."""
    x, y = d.r.sample(d.r.choice(d.p.opposites), 2)
    if key == "no":
        y = d.one([v for pair in d.p.opposites for v in pair if x not in pair])
    return f"entry: {d.one(d.p.people)} is never {x}, only {y}, which is the opposite."


@checking({"true": "correct", "false": "invalid"})
def claim_form(d: Draw, key: str) -> str:
    """Whether the plural is the right one."""
    x = d.one(d.p.plurals)
    y = _either(d, key, dict(d.p.plurals), x)
    return f"example: {d.one(d.p.people)} has one {x}, {d.one(d.p.people)} has {d.one(d.w.numbers[2:])} {y}."


@checking(("true", "false"))
def claim_kind(d: Draw, key: str) -> str:
    """Whether two things are both of a kind."""
    kind = d.one(d.p.things.values())
    x, y = d.some(d.keys(d.p.things, kind), 2)
    if key == "false":
        y = d.one([z for z, k in d.p.things.items() if k != kind])
    x, y = d.r.sample([x, y], 2)
    return f"report: {d.one(d.p.people)} sells {an(kind)} or two, such as {an(x)} and {an(y)}."


@paraphrase(ALIKE)
def same_subject(d: Draw, key: str) -> str:
    """Whether two nouns share a topic."""
    s, t = d.some(d.p.topics, 2)
    x, y = d.some(d.p.topics[s], 2)
    if key == "different":
        y = d.one(d.p.topics[t])
    p, q = d.some(d.p.people, 2)
    return f"first: {p} thinks of the {x} second: {q} thinks of the {y}"


@paraphrase(ALIKE)
def same_kind(d: Draw, key: str) -> str:
    """Whether two things are of one kind."""
    kind = d.one(d.p.things.values())
    x, y = d.some(d.keys(d.p.things, kind), 2)
    if key == "different":
        y = d.one([z for z, k in d.p.things.items() if k != kind])
    p, q = d.some(d.p.people, 2)
    return f"first: {p} lost {an(x)} second: {q} lost {an(y)}"


@paraphrase({"same": "same", "different": "different"})
def same_mood(d: Draw, key: str) -> str:
    """Whether two people feel alike."""
    e, f = d.some(d.p.feelings, 2)
    f = e if key == "same" else f
    p, q = d.some(d.p.people, 2)
    return f"first: {p} {d.one(d.p.events[e])} second: {q} is {d.one(d.p.feelings[f])}"


@paraphrase(ALIKE)
def same_verdict(d: Draw, key: str) -> str:
    """Whether two opinions agree."""
    sides = d.r.sample((d.p.positive, d.p.negative), 2)
    x = d.one(sides[0])
    y = d.one(sides[0] if key == "same" else sides[1], x)
    item = d.one(d.w.reviewed)
    return f"first: {d.one(d.p.people)} had {an(x)} {item} second: {d.one(d.p.people)} had {an(y)} {item}"


@paraphrase({"same": "same", "different": "other"})
def same_country(d: Draw, key: str) -> str:
    """Whether two cities are in one country."""
    land, other = d.some(d.p.countries, 2)
    x, y = d.r.sample(d.p.countries[land][:2], 2)
    if key == "different":
        y = d.one(d.p.countries[other][:2])
    p, q = d.some(d.p.people, 2)
    return f"first: {p} came from {x} second: {q} came from {y}"


@paraphrase(ALIKE)
def same_season(d: Draw, key: str) -> str:
    """Whether two months are in one season."""
    season = d.one(d.w.seasons.values())
    x, y = d.some(d.keys(d.w.seasons, season), 2)
    if key == "different":
        y = d.one([m for m, s in d.w.seasons.items() if s != season])
    p, q = d.some(d.p.people, 2)
    return f"first: {p} came in {x} second: {q} came in {y}"


@paraphrase({"same": "equal", "different": "unrelated"})
def same_sense(d: Draw, key: str) -> str:
    """Whether two words mean the same, among other words."""
    x, y = d.r.sample(d.r.choice(d.p.synonyms), 2)
    if key == "different":
        y = d.one([v for pair in d.p.synonyms for v in pair if x not in pair])
    p, q = d.some(d.p.people, 2)
    return f"first: {p} and {q} said {x} second: {p} and {q} said {y}"


@paraphrase({"same": "yes", "different": "no"})
def same_owner(d: Draw, key: str) -> str:
    """Whether two sentences give a thing to the same person."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.things)
    has = q if key == "same" else p
    return f"first: {p} sent the {x} to {q} second: {has} {d.one(KEEPS)} the {x}"
