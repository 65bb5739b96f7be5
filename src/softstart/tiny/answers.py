"""Questions with a short answer, seen entities only. No torch. One function is one kind."""

from __future__ import annotations

import random
from collections.abc import Callable

from softstart.tiny.documents import an, any_word, series
from softstart.tiny.world import World

AnswerKind = Callable[[World, random.Random], tuple[str, str]]


def ask_place(w: World, r: random.Random) -> tuple[str, str]:
    """Who is where."""
    people, places = r.sample(w.seen.people, 3), r.sample(w.places, 3)
    n = r.randint(1, 3)
    story = " ".join(
        f"{p} {r.choice(['is in', 'went to'])} the {x}." for p, x in zip(people[:n], places, strict=False)
    )
    i = r.randrange(n)
    return r.choice(
        [(f"{story} where is {people[i]}?", places[i]), (f"{story} who is in the {places[i]}?", people[i])]
    )


def ask_owner(w: World, r: random.Random) -> tuple[str, str]:
    """Who has what, of which color."""
    people, things, colors = (
        r.sample(w.seen.people, 3),
        r.sample(sorted(w.seen.things), 3),
        r.sample(w.colors, 3),
    )
    n = r.randint(1, 3)
    story = " ".join(
        f"{p} has {an(f'{c} {x}')}." for p, x, c in zip(people[:n], things, colors, strict=False)
    )
    i = r.randrange(n)
    return r.choice([
        (f"{story} who has the {things[i]}?", people[i]), (f"{story} what does {people[i]} have?", things[i]),
        (f"{story} which color has the {things[i]}?", colors[i]),
        (f"{story} what is {colors[i]}?", things[i]),
    ])  # fmt: skip


def ask_giver(w: World, r: random.Random) -> tuple[str, str]:
    """Who gave what to whom."""
    (p, q), x = r.sample(w.seen.people, 2), r.choice(sorted(w.seen.things))
    story = r.choice([f"{p} gave the {x} to {q}.", f"{q} got the {x} from {p}.", f"{p} handed {q} the {x}."])
    return r.choice(
        [
            (f"{story} who has the {x} now?", q),
            (f"{story} who had the {x} before?", p),
            (f"{story} what was given?", x),
        ]
    )


def ask_member(w: World, r: random.Random) -> tuple[str, str]:
    """Which of two or three is of a kind."""
    kinds = w.seen.kinds
    x = r.choice(sorted(kinds))
    others = r.sample([y for y in sorted(kinds) if kinds[y] != kinds[x]], r.randint(1, 2))
    row = r.sample([x, *others], len(others) + 1)
    return f"{series(row, 'or')}, which one is {an(kinds[x])}?", x


def ask_odd(w: World, r: random.Random) -> tuple[str, str]:
    """Which one does not belong."""
    kinds = w.seen.kinds
    kind = r.choice(sorted(set(kinds.values())))
    row = r.sample([y for y in sorted(kinds) if kinds[y] == kind], 2)
    x = r.choice([y for y in sorted(kinds) if kinds[y] != kind])
    row = r.sample([*row, x], 3)
    return f"{series(row)}: one does not belong, namely", x


def ask_order(w: World, r: random.Random) -> tuple[str, str]:
    """Which word comes first or last, or all of them turned around or repeated."""
    row = [any_word(w.seen, r) for _ in range(r.randint(2, 4))]
    return r.choice([
        (f"{' '.join(row)}, what came first?", row[0]), (f"{' '.join(row)}, what came last?", row[-1]),
        (f"say after me {' '.join(row)}", " ".join(row)),
        (f"backwards {' '.join(row[:3])}", " ".join(row[:3][::-1])),
    ])  # fmt: skip


def ask_fact(w: World, r: random.Random) -> tuple[str, str]:
    """One fact of the world."""
    s = w.seen
    animal, food, country, job = (
        r.choice(sorted(s.animals)),
        r.choice(sorted(s.foods)),
        r.choice(sorted(s.countries)),
        r.choice(sorted(w.jobs)),
    )
    thing, city, month = r.choice(sorted(s.kinds)), r.choice(sorted(s.cities)), r.choice(sorted(w.seasons))
    return r.choice([
        (f"what is {an(thing)}?", s.kinds[thing]), (f"where does the {animal} live?", s.animals[animal][1]),
        (f"how many legs has the {animal}?", w.legs[s.animals[animal][0]]),
        (f"how does {food} taste?", s.foods[food][1]), (f"which color is the {food}?", s.foods[food][2]),
        (f"what is the capital of {country}?", s.countries[country][0]),
        (f"what do they speak in {country}?", s.countries[country][2]),
        (f"in which country is {city}?", s.cities[city]),
        (f"where does the {job} work?", w.jobs[job][0]), (f"in which season is {month}?", w.seasons[month]),
    ])  # fmt: skip


def ask_form(w: World, r: random.Random) -> tuple[str, str]:
    """Opposites, synonyms, tenses, plurals, what comes next."""
    s = w.seen
    (x, y), (p, q) = r.choice(s.opposites), r.choice(s.synonyms)
    verb, noun, names = (
        r.choice(sorted(s.verbs)),
        r.choice(sorted(s.plurals)),
        r.choice([w.months, w.days, w.numbers]),
    )
    i = r.randrange(len(names) - 1)
    return r.choice([
        (f"what is not {x} is", y), (f"what is not {y} is", x), (f"another way to say {p} is", q),
        (f"another way to say {q} is", p), (f"now they {verb}, yesterday they", s.verbs[verb]),
        (f"one {noun}, many", s.plurals[noun]),
        (f"what comes after {names[i]}?", names[i + 1]), (f"what comes before {names[i + 1]}?", names[i]),
    ])  # fmt: skip


def ask_judgement(w: World, r: random.Random) -> tuple[str, str]:
    """Emotion, topic or verdict of a short text."""
    s, p = w.seen, r.choice(w.seen.people)
    e, t, liked = r.choice(sorted(s.feelings)), r.choice(sorted(s.topics)), r.random() < 0.5
    happened = r.choice([*s.events[e], *(f"was {x}" for x in s.feelings[e])])
    x, y = r.sample(s.topics[t], 2)
    item, word = r.choice(w.reviewed), r.choice(s.positive if liked else s.negative)
    return r.choice([
        (f"{p} {happened}. what did {p} feel?", e), (f"{p} talked about the {x} and the {y}. what about?", t),
        (f"the {item} was {word}. was it good or bad?", "good" if liked else "bad"),
        (f"the {item} was {word}. did {p} like it or hate it?", "like" if liked else "hate"),
    ])  # fmt: skip


ANSWERS: dict[AnswerKind, float] = {
    ask_place: 1.5, ask_owner: 2, ask_giver: 1, ask_member: 1.5, ask_odd: 1, ask_order: 2, ask_fact: 2,
    ask_form: 1.5, ask_judgement: 1.5,
}  # fmt: skip


def answer(w: World, r: random.Random) -> tuple[str, str]:
    """A question and its short answer."""
    return r.choices(list(ANSWERS), list(ANSWERS.values()))[0](w, r)
