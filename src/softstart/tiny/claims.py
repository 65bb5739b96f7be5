"""Verification documents: short, balanced, varied wordings, seen entities only. No torch.

A claim is a statement that holds or not in a context or in the world; ``verify`` wraps it into one of many
wordings with a yes-or-no kind of answer. One function is one kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from softstart.tiny.documents import an, any_word, series
from softstart.tiny.world import World

#: (context, statement, whether it holds); the context may be empty.
Claim = tuple[str, str, bool]
ClaimKind = Callable[[World, random.Random], Claim]


def _other(r: random.Random, values: Iterable[str], *used: str) -> str:
    return r.choice([v for v in sorted(set(values)) if v not in used])


def _attribute(
    r: random.Random, table: Mapping[str, str], forms: list[str], truth: bool, context: str = ""
) -> Claim:
    x = r.choice(sorted(table))
    value = table[x] if truth else _other(r, set(table.values()), table[x])
    return context, r.choice(forms).format(x=x, v=value, av=an(value), ax=an(x)), truth


def equality(w: World, r: random.Random) -> Claim:
    """Whether two words are the same word."""
    x, truth = any_word(w.seen, r), r.random() < 0.5
    y = x
    while y == x and not truth:
        y = any_word(w.seen, r)
    return "", r.choice([f"{x} is {y}", f"{x} equals {y}", f"{x} and {y} are one and the same"]), truth


def copying(w: World, r: random.Random) -> Claim:
    """Whether a row contains a word."""
    row = [any_word(w.seen, r) for _ in range(r.randint(2, 4))]
    truth = r.random() < 0.5
    x = r.choice(row)
    while x in row and not truth:
        x = any_word(w.seen, r)
    forms = [f"{x} is among them", f"{x} was said", f"one of them is {x}"]
    return (
        f"{w.seen.people[0]} said {series(row)}." if r.random() < 0.3 else f"{series(row)}.",
        r.choice(forms),
        truth,
    )


def category(w: World, r: random.Random) -> Claim:
    """What kind something is."""
    forms = ["the {x} is {av}", "{ax} is {av}", "{x} is of the kind {v}", "{v} is the kind of the {x}"]
    return _attribute(r, w.seen.kinds, forms, r.random() < 0.5)


def home(w: World, r: random.Random) -> Claim:
    """Where an animal lives."""
    forms = ["the {x} lives in the {v}", "the {v} is the home of the {x}", "in the {v} lives the {x}"]
    return _attribute(r, {x: f[1] for x, f in w.seen.animals.items()}, forms, r.random() < 0.5)


def size(w: World, r: random.Random) -> Claim:
    """Which of two sizes an animal has, or how many legs."""
    if r.random() < 0.5:
        return _attribute(
            r,
            {x: f[2] for x, f in w.seen.animals.items()},
            ["the {x} is {v}", "{v} is the size of the {x}"],
            r.random() < 0.5,
        )
    legs = {x: w.legs[f[0]] for x, f in w.seen.animals.items()}
    return _attribute(r, legs, ["the {x} has {v} legs", "{v} legs belong to the {x}"], r.random() < 0.5)


def taste(w: World, r: random.Random) -> Claim:
    """How food tastes or which color it has."""
    if r.random() < 0.5:
        return _attribute(
            r,
            {x: f[1] for x, f in w.seen.foods.items()},
            ["the {x} tastes {v}", "{x} is {v}", "the taste of {x} is {v}"],
            r.random() < 0.5,
        )
    colors = {x: f[2] for x, f in w.seen.foods.items()}
    return _attribute(r, colors, ["the {x} is {v}", "{x} has the color {v}"], r.random() < 0.5)


def where(w: World, r: random.Random) -> Claim:
    """Where somebody is, stated in the context."""
    people, places = r.sample(w.seen.people, 3), r.sample(w.places, 4)
    n, truth = r.randint(1, 3), r.random() < 0.5
    story = [
        r.choice([f"{p} is in the {x}.", f"{p} went to the {x}."])
        for p, x in zip(people, places[:n], strict=False)
    ]
    i = r.randrange(n)
    wrong = r.choice([x for x in (places[:n] if n > 1 and r.random() < 0.7 else places) if x != places[i]])
    x = places[i] if truth else wrong
    return (
        " ".join(story),
        r.choice([f"{people[i]} is in the {x}", f"the {x} is where {people[i]} is"]),
        truth,
    )


def owning(w: World, r: random.Random) -> Claim:
    """Who has which thing, or whose thing has which color, stated in the context."""
    people, things, colors = (
        r.sample(w.seen.people, 3),
        r.sample(sorted(w.seen.things), 4),
        r.sample(w.colors, 4),
    )
    n, truth, colored = r.randint(1, 2), r.random() < 0.5, r.random() < 0.5
    story = [
        f"{p} has {an(f'{c} {x}' if colored else x)}."
        for p, x, c in zip(people[:n], things, colors, strict=False)
    ]
    i = r.randrange(n)
    if colored:
        c = colors[i] if truth else r.choice([c for c in colors if c != colors[i]])
        return (
            " ".join(story),
            r.choice([f"the {things[i]} of {people[i]} is {c}", f"the {things[i]} is {c}"]),
            truth,
        )
    x = things[i] if truth else r.choice([x for x in things if x != things[i]])
    return " ".join(story), r.choice([f"{people[i]} has the {x}", f"the {x} belongs to {people[i]}"]), truth


def giving(w: World, r: random.Random) -> Claim:
    """Who has a thing after it was given."""
    (p, q), x, truth = r.sample(w.seen.people, 2), r.choice(sorted(w.seen.things)), r.random() < 0.5
    story = r.choice([f"{p} gave the {x} to {q}.", f"{q} got the {x} from {p}.", f"{p} handed {q} the {x}."])
    return (
        story,
        r.choice([f"{q if truth else p} has the {x}", f"the {x} is with {q if truth else p}"]),
        truth,
    )


def geography(w: World, r: random.Random) -> Claim:
    """Capitals, cities and languages."""
    c, part = w.seen.countries, r.randrange(3)
    truth = r.random() < 0.5
    if part == 0:
        return _attribute(
            r,
            {x: f[0] for x, f in c.items()},
            ["the capital of {x} is {v}", "{v} is the capital of {x}"],
            truth,
        )
    if part == 1:
        return _attribute(
            r, w.seen.cities, ["{x} is in {v}", "{x} is a city in {v}", "{v} has the city of {x}"], truth
        )
    return _attribute(
        r, {x: f[2] for x, f in c.items()}, ["people in {x} speak {v}", "the language of {x} is {v}"], truth
    )


def work(w: World, r: random.Random) -> Claim:
    """Where people work."""
    forms = ["the {x} works in the {v}", "the {v} is the workplace of the {x}"]
    return _attribute(r, {x: f[0] for x, f in w.jobs.items()}, forms, r.random() < 0.5)


def opposite(w: World, r: random.Random) -> Claim:
    """Whether words are opposites."""
    table = {x: y for pair in w.seen.opposites for x, y in (pair, pair[::-1])}
    return _attribute(
        r,
        table,
        ["the opposite of {x} is {v}", "{x} and {v} are opposites", "not {x} means {v}"],
        r.random() < 0.5,
    )


def synonym(w: World, r: random.Random) -> Claim:
    """Whether words mean the same."""
    table = {x: y for pair in w.seen.synonyms for x, y in (pair, pair[::-1])}
    return _attribute(
        r,
        table,
        ["{x} means the same as {v}", "{x} and {v} have one meaning", "{v} means {x}"],
        r.random() < 0.5,
    )


def forms(w: World, r: random.Random) -> Claim:
    """Whether a past or a plural belongs to a word."""
    table = w.seen.verbs if r.random() < 0.5 else w.seen.plurals
    return _attribute(r, table, ["{v} is a form of {x}", "{x} becomes {v}"], r.random() < 0.5)


def calendar(w: World, r: random.Random) -> Claim:
    """What comes after what, and which season a month is in."""
    if r.random() < 0.3:
        return _attribute(r, w.seasons, ["{x} is in {v}", "{v} has the month of {x}"], r.random() < 0.5)
    names = r.choice([w.months, w.days, w.numbers])
    table = {x: names[(i + 1) % len(names)] for i, x in enumerate(names)}
    return _attribute(
        r, table, ["{v} comes after {x}", "{x} comes before {v}", "after {x} comes {v}"], r.random() < 0.5
    )


def amount(w: World, r: random.Random) -> Claim:
    """Which number is more."""
    (x, y), more = r.sample(range(21), 2), r.random() < 0.5
    return "", f"{w.numbers[x]} is {'more' if more else 'less'} than {w.numbers[y]}", (x > y) == more


def verdict(w: World, r: random.Random) -> Claim:
    """Whether somebody liked what is described."""
    item, p, liked, truth = r.choice(w.reviewed), r.choice(w.seen.people), r.random() < 0.5, r.random() < 0.5
    words = r.sample(w.seen.positive if liked else w.seen.negative, 2)
    text = r.choice(
        [
            f"the {item} was {words[0]}.",
            f"{p} found the {item} {words[0]} and {words[1]}.",
            f"a {words[0]} {item}, {p} said.",
        ]
    )
    good = liked == truth
    end = r.choice(
        [
            f"the {item} was {'good' if good else 'bad'}",
            f"{p} {'liked' if good else 'hated'} the {item}",
            f"the opinion of {p} is {'positive' if good else 'negative'}",
        ]
    )
    return text, end, truth


def mood(w: World, r: random.Random) -> Claim:
    """Which emotion somebody feels."""
    p, (e, other), truth = r.choice(w.seen.people), r.sample(sorted(w.seen.feelings), 2), r.random() < 0.5
    text = (
        f"{p} {r.choice(w.seen.events[e])}."
        if r.random() < 0.5
        else f"{p} was {r.choice(w.seen.feelings[e])}."
    )
    named = e if truth else other
    end = (
        f"the emotion of {p} is {named}" if r.random() < 0.5 else f"{p} is {r.choice(w.seen.feelings[named])}"
    )
    return text, end, truth


def theme(w: World, r: random.Random) -> Claim:
    """Which topic a text has."""
    (t, other), truth = r.sample(sorted(w.seen.topics), 2), r.random() < 0.5
    x, y = r.sample(w.seen.topics[t], 2)
    named = t if truth else other
    text = r.choice(
        [
            f"{r.choice(w.seen.people)} talked about the {x} and the {y}.",
            f"the {x} was near the {y}.",
            f"the {x} again.",
        ]
    )
    return text, r.choice([f"it was about {named}", f"the topic is {named}", f"this is {named}"]), truth


def comparing(w: World, r: random.Random) -> Claim:
    """Comparisons and their converse, stated in the context."""
    (p, q), truth = r.sample(w.seen.people, 2), r.random() < 0.5
    up, down = r.choice(
        [("older", "younger"), ("taller", "shorter"), ("richer", "poorer"), ("faster", "slower")]
    )
    first, second = (up, down) if r.random() < 0.5 else (down, up)
    end = (
        r.choice([f"{q} is {second} than {p}", f"{p} is {first} than {q}"])
        if truth
        else r.choice([f"{p} is {second} than {q}", f"{q} is {first} than {p}"])
    )
    return f"{p} is {first} than {q}.", end, truth


CLAIMS: dict[ClaimKind, float] = {
    equality: 2, copying: 2, category: 2, home: 1, size: 1, taste: 1, where: 2, owning: 2, giving: 1,
    geography: 2, work: 1, opposite: 1, synonym: 1, forms: 1, calendar: 1.5, amount: 1, verdict: 1.5,
    mood: 1.5, theme: 1.5, comparing: 1,
}  # fmt: skip
#: The kinds that come first: attention learns to match words on them.
FIRST: dict[ClaimKind, float] = {equality: 1, copying: 1, category: 1, where: 1}

_WORDINGS = (
    ("{c} {s}?", "yes", "no"), ("{c} is it so that {s}?", "yes", "no"), ("{c} {s}, or not?", "yes", "no"),
    ("{c} can one say that {s}?", "yes", "no"), ("{c} so {s}. this is", "true", "false"),
    ("{c} they say that {s}, which is", "true", "false"), ("{c} {s}. true or false?", "true", "false"),
    ("{c} {p} thinks that {s}. {p} is", "right", "wrong"),
    ("{c} {p}: {s}. do you agree with {p}?", "yes", "no"),
    ("{c} {p} says that {s}. is {p} right or wrong?", "right", "wrong"),
)  # fmt: skip


def verify(w: World, r: random.Random, kinds: Mapping[ClaimKind, float]) -> tuple[str, str]:
    """A claim of one of the kinds in one of many wordings, and whether it holds."""
    context, statement, truth = r.choices(list(kinds), list(kinds.values()))[0](w, r)
    wording, good, bad = r.choice(_WORDINGS)
    text = wording.format(c=context, s=statement, p=r.choice(w.seen.people)).strip()
    return text, good if truth else bad
