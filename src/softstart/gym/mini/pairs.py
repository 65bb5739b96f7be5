"""Entailment, fact checking, paraphrase: does it hold? One function is one task."""

from __future__ import annotations

from softstart.gym.mini.spec import Draw, classification
from softstart.tiny.documents import an, nonce

STAYS = ("waits", "sits", "stays", "stands")
KEEPS = ("carries", "holds", "keeps", "owns")
OLDER = (("older", "younger"), ("taller", "shorter"), ("richer", "poorer"), ("faster", "slower"))


@classification("nli", ("yes", "no"), metric="ACC")
def entail_place(d: Draw, key: str) -> str:
    """Whether somebody is where they are said to be."""
    people, places = d.some(d.p.people, 2), d.some(d.w.places, 2)
    story = ", ".join(f"{p} {d.one(STAYS)} in the {x}" for p, x in zip(people, places, strict=True))
    x = places[0] if key == "yes" else places[1]
    return f"premise: {story}. hypothesis: {people[0]} is in the {x}."


@classification("nli", {"yes": "true", "no": "false"}, metric="ACC")
def entail_owner(d: Draw, key: str) -> str:
    """Whether somebody has what they are said to have."""
    (p, q), (x, y) = d.some(d.p.people, 2), d.some(d.p.things, 2)
    story = f"{p} {d.one(KEEPS)} {an(x)} and {q} {d.one(KEEPS)} {an(y)}."
    return f"premise: {story} hypothesis: {p} has the {x if key == 'yes' else y}."


@classification("nli", ("yes", "maybe", "no"), metric="ACC")
def entail_three(d: Draw, key: str) -> str:
    """As entail_place, with a third answer for people not spoken of."""
    (p, q), (x, y) = d.some(d.p.people, 2), d.some(d.w.places, 2)
    who, where = (q, x) if key == "maybe" else (p, x if key == "yes" else y)
    return f"premise: {p} {d.one(STAYS)} in the {x}. hypothesis: {who} is in the {where}."


@classification("nli", {"yes": "agree", "no": "disagree"}, metric="ACC")
def entail_comparison(d: Draw, key: str) -> str:
    """Whether a comparison is turned around rightly."""
    (p, q), (up, down) = d.some(d.p.people, 2), d.r.choice(OLDER)
    if d.coin():
        up, down = down, up
    x, y = (q, p) if key == "yes" else (p, q)
    return f"premise: {p} is much {up} than {q}. hypothesis: {x} is {down} than {y}."


@classification("fact_checking", ("true", "false"))
def fact_kind(d: Draw, key: str) -> str:
    """Whether something is of a kind."""
    x = d.one(d.p.kinds)
    kind = d.p.kinds[x] if key == "true" else d.one(d.p.kinds.values(), d.p.kinds[x])
    return f"claim: for {d.one(d.p.people)} the {x} is {an(kind)}."


@classification("fact_checking", {"true": "valid", "false": "invalid"})
def fact_capital(d: Draw, key: str) -> str:
    """Whether a city is the capital."""
    land = d.one(d.p.countries)
    capital = d.p.countries[land if key == "true" else d.one(d.p.countries, land)][0]
    return f"statement: {d.one(d.p.people)} went to {capital}, the capital of {land}."


@classification("fact_checking", {"true": "correct", "false": "mistake"})
def fact_calendar(d: Draw, key: str) -> str:
    """Whether a day or month follows another."""
    names = d.r.choice([d.w.months, d.w.days])
    i = d.r.randrange(len(names))
    y = names[(i + 1) % len(names)]
    if key == "false":
        y = d.one(names, names[i], y)
    return f"note: {d.one(d.p.people)} leaves at the end of {names[i]} and is back when {y} is here."


@classification("paraphrase", ("same", "different"), metric="ACC")
def same_word(d: Draw, key: str) -> str:
    """Whether two words are equal."""
    x, y = (nonce(d.r) if d.coin() else d.one(d.p.kinds) for _ in range(2))
    return f"first: {x} second: {x if key == 'same' else y}"


@classification("paraphrase", {"same": "yes", "different": "no"}, metric="ACC")
def synonym_swap(d: Draw, key: str) -> str:
    """Whether a swapped word means the same."""
    s, t = d.r.choice(d.p.synonyms)
    if key == "different":
        t = d.r.choice(d.r.choice([pair for pair in d.p.synonyms if s not in pair]))
    p, place = d.one(d.p.people), d.one(d.w.places)
    return f"first: {p} wrote {s} in the {place} second: {p} wrote {t} in the {place}"


@classification("paraphrase", {"same": "similar", "different": "other"}, metric="ACC")
def swapped_roles(d: Draw, key: str) -> str:
    """Whether giver and receiver agree."""
    (p, q), x = d.some(d.p.people, 2), d.one(d.p.things)
    one, two = (p, q) if key == "same" else (q, p)
    return f"first: {p} handed {q} the {x} second: {two} got the {x} from {one}"


@classification("paraphrase", {"opposite": "opposite", "same": "equal"}, metric="ACC")
def opposite_or_equal(d: Draw, key: str) -> str:
    """Whether two words are opposites or synonyms."""
    x, y = d.r.choice(d.p.opposites if key == "opposite" else d.p.synonyms)
    if d.coin():
        x, y = y, x
    p, q = d.some(d.p.people, 2)
    return f"first: {p} prefers {x} second: {q} prefers {y}"
