"""General pretraining documents: plain statements, reviews, stories, dialogues, lists. No torch.

Everything here may use held-back entities, so nothing here asks a question. One function is one kind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from softstart.tiny.world import Pool, World

Document = Callable[[World, random.Random], str]

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"


def an(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0] in _VOWELS else 'a'} {word}"


def series(words: Sequence[str], last: str = "and") -> str:
    """Words as an English list: "x, y and z"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def nonce(r: random.Random) -> str:
    """A made-up word, spelled from bytes by the tokenizer."""
    syllables = [r.choice(_CONSONANTS) + r.choice(_VOWELS) for _ in range(r.randint(1, 2))]
    return "".join(syllables) + r.choice(_CONSONANTS + " ").strip()


def any_word(p: Pool, r: random.Random) -> str:
    """A word of any kind, often made up."""
    pools: list[list[str]] = [list(p.kinds), list(p.people), list(p.positive), list(p.verbs), list(p.plurals)]
    return nonce(r) if r.random() < 0.3 else r.choice(r.choice(pools))


def _some(r: random.Random, sentences: Sequence[str], low: int = 1) -> str:
    """At least ``low`` of the sentences, in random order."""
    return " ".join(r.sample(sentences, r.randint(low, len(sentences))))


def animal(w: World, r: random.Random) -> str:
    """Facts about one or two animals."""
    text = []
    for x in r.sample(list(w.all.animals), r.randint(1, 2)):
        kind, home, size = w.all.animals[x]
        text.append(_some(r, [
            r.choice([f"the {x} is {an(kind)}.", f"{an(x)} is {an(kind)}.", f"every {x} is {an(kind)}."]),
            r.choice([f"the {x} lives in the {home}.", f"the home of the {x} is the {home}."]),
            f"the {x} is {size}.",
            f"the {x} has {w.legs[kind]} legs.",
        ]))  # fmt: skip
    return " ".join(text)


def food(w: World, r: random.Random) -> str:
    """Facts about one or two foods."""
    text = []
    for x in r.sample(list(w.all.foods), r.randint(1, 2)):
        kind, taste, color = w.all.foods[x]
        text.append(_some(r, [
            r.choice([f"the {x} is {an(kind)}.", f"{x} is {an(kind)}.", f"as we know, {x} is {an(kind)}."]),
            r.choice([f"the {x} tastes {taste}.", f"{x} has a {taste} taste."]),
            r.choice([f"the color of the {x} is {color}.", f"the {x} is {color}."]),
        ]))  # fmt: skip
    return " ".join(text)


def thing(w: World, r: random.Random) -> str:
    """What kind of thing a thing is."""
    names = r.sample(list(w.all.things), r.randint(1, 3))
    forms = ["the {x} is {k}.", "{ax} is {k}.", "the {x} is a kind of {kind}.", "as {k}, the {x} is useful."]
    return " ".join(
        r.choice(forms).format(x=x, ax=an(x), k=an(w.all.things[x]), kind=w.all.things[x]) for x in names
    )


def geography(w: World, r: random.Random) -> str:
    """Cities, countries and languages."""
    text = []
    for country in r.sample(list(w.all.countries), r.randint(1, 2)):
        capital, town, language = w.all.countries[country]
        text.append(_some(r, [
            r.choice([f"{capital} is the capital of {country}.", f"the capital of {country} is {capital}."]),
            r.choice([f"{town} is in {country}.", f"{town} is a city in {country}."]),
            r.choice([f"{capital} is in {country}.", f"{capital} is a city in {country}."]),
            r.choice([f"people in {country} speak {language}.", f"{language} is the language of {country}."]),
        ]))  # fmt: skip
    return " ".join(text)


def person(w: World, r: random.Random) -> str:
    """What is always true of a person, with the consequence of living somewhere."""
    p = r.choice(w.all.people)
    facts = w.persons[p]
    country = w.all.cities[facts.home]
    return _some(r, [
        r.choice([f"{p} lives in {facts.home}.", f"the home of {p} is {facts.home}."]),
        f"{p} lives in {facts.home}, so {p} lives in {country}.",
        r.choice([f"{p} is {an(facts.job)}.", f"{p} works as {an(facts.job)}."]),
        r.choice([f"{p} likes {facts.likes}.", f"{p} loves to eat {facts.likes}."]),
        r.choice([f"{p} has {an(facts.pet)}.", f"the pet of {p} is {an(facts.pet)}."]),
    ], low=2)  # fmt: skip


def job(w: World, r: random.Random) -> str:
    """Workplaces and what workers handle."""
    text = []
    for x in r.sample(list(w.jobs), 2):
        place, handles = w.jobs[x]
        text.append(_some(r, [
            r.choice([f"the {x} works in the {place}.", f"in the {place} works {an(x)}."]),
            r.choice([f"the {x} cares for the {handles}.", f"{handles} are the work of the {x}."]),
        ]))  # fmt: skip
    return " ".join(text)


def calendar(w: World, r: random.Random) -> str:
    """Months, days, seasons and numbers in order."""
    names = r.choice([w.months, w.days])
    i = r.randrange(len(names))
    x, y = names[i], names[(i + 1) % len(names)]
    month, start = r.choice(w.months), r.randrange(len(w.numbers) - 4)
    run = [names[(i + k) % len(names)] for k in range(4)]
    return _some(r, [
        r.choice([f"after {x} comes {y}.", f"{x} comes before {y}.", f"{y} follows {x}."]),
        r.choice([f"{month} is in {w.seasons[month]}.", f"{w.seasons[month]} has the month of {month}."]),
        f"{', '.join(run)}.",
        f"{', '.join(w.numbers[start : start + 4])}.",
    ])  # fmt: skip


def arithmetic(w: World, r: random.Random) -> str:
    """Small sums and comparisons of numbers."""
    x, y = r.randint(0, 10), r.randint(0, 10)
    low, high = sorted(r.sample(range(21), 2))
    n = w.numbers
    return _some(r, [
        f"{n[x]} plus {n[y]} is {n[x + y]}.",
        r.choice([f"{n[high]} is more than {n[low]}.", f"{n[low]} is less than {n[high]}."]),
        f"{n[high]} minus {n[low]} is {n[high - low]}.",
    ])  # fmt: skip


def meaning(w: World, r: random.Random) -> str:
    """Opposites, synonyms, tenses and plurals."""
    p = w.all
    (x, y), (s, t) = r.choice(p.opposites), r.choice(p.synonyms)
    if r.random() < 0.5:
        x, y, s, t = y, x, t, s
    verb, noun, number = r.choice(list(p.verbs)), r.choice(list(p.plurals)), r.choice(w.numbers[2:])
    past, many = p.verbs[verb], p.plurals[noun]
    who = r.choice(["we", "they", "you", "i"])
    return _some(r, [
        r.choice([f"{x} is the opposite of {y}.", f"what is not {x} is {y}.", f"some are {x}, some {y}."]),
        r.choice([f"{s} means the same as {t}.", f"{s} is another way to say {t}.", f"{s}, that is, {t}."]),
        r.choice([f"today {who} {verb}. yesterday {who} {past}.", f"{who} {verb} now and {past} then."]),
        r.choice([f"one {noun}, {number} {many}.", f"there was one {noun}. now there are {number} {many}."]),
    ])  # fmt: skip


def emotion(w: World, r: random.Random) -> str:
    """Who felt what and why."""
    p = r.choice(w.all.people)
    e = r.choice(list(w.all.feelings))
    adjective, event = r.choice(w.all.feelings[e]), r.choice(w.all.events[e])
    other = r.choice(w.all.feelings[e])
    return r.choice([
        f"{p} {event}. {p} was {adjective}. it was {e}.",
        f"{p} felt {e} because {p} {event}.",
        f"{adjective} people feel {e}.",
        f"those who are {adjective} are also {other}. they feel {e}.",
        f"{p} was {adjective}. {p} felt {e}.",
        f"after {p} {event}, {p} was {adjective}.",
        f"{p}: i am {adjective}. {r.choice(w.all.people)}: tell me. {p}: i {event}.",
    ])  # fmt: skip


def topic(w: World, r: random.Random) -> str:
    """Nouns and the topics they belong to."""
    t = r.choice(list(w.all.topics))
    x, y, z = r.sample(w.all.topics[t], 3)
    p = r.choice(w.all.people)
    return r.choice([
        f"the {x} and the {y} belong to {t}.",
        f"{p} talked about the {x}, the {y} and the {z}. it was all about {t}.",
        f"the {x} is part of {t}.",
        f"whoever knows {t} knows the {x}.",
        f"{t} in the newspaper: {an(x)}, {an(y)}, {an(z)}.",
        f"{p} reads about {t} and thinks of the {x}.",
    ])  # fmt: skip


def review(w: World, r: random.Random) -> str:
    """Opinions; plain statements more often than composed ones."""
    p, item, other = r.choice(w.all.people), *r.sample(w.reviewed, 2)
    good, better = r.sample(w.all.positive, 2)
    bad, worse = r.sample(w.all.negative, 2)
    if r.random() < 0.5:
        x, y, verdict, act, name = good, better, "good", r.choice(["liked", "enjoyed", "praised"]), "positive"
        act, price = r.choice([act, "recommended"]), "worth the money"
    else:
        x, y, verdict, act, name = bad, worse, "bad", r.choice(["hated", "disliked", "blamed"]), "negative"
        price = "a waste of time"
    return r.choice([
        f"the {item} was {x}. it was {verdict}.",
        f"the {item} was {x}. {p} {act} it.",
        f"{p} {act} the {item}. it was {x}.",
        f"the {item} was {x}. it was {price}.",
        f"{x} is a {name} word.",
        f"{x} and {y} are {name} words.",
        f"a {x} {item} is a {verdict} {item}. a {verdict} {item} gets a {name} opinion.",
        f"the {item} was {x} and {y}. {p} {act} it very much.",
        f"the {item} was {good}, but the {other} was {bad}. {p} liked the {item} and hated the {other}.",
        f"the {other} was {r.choice(w.neutral)}, nothing more. the {item} was {x}. so {p} {act} the {item}.",
        f"{p} found the {item} {r.choice(['really', 'truly', 'very', 'quite'])} {x}. a {verdict} {item}.",
        f"the {item} was {r.choice(w.neutral)}, not good and not bad.",
    ])  # fmt: skip


def story(w: World, r: random.Random) -> str:
    """People move, meet, own and give."""
    p, q = r.sample(w.all.people, 2)
    here, there = r.sample(w.places, 2)
    x, y = r.sample(list(w.all.things), 2)
    color, verb = r.choice(w.colors), r.choice(list(w.all.verbs.values()))
    day, month = r.choice(w.days), r.choice(w.months)
    return r.choice([
        f"{p} is in the {here}. {q} is in the {there}. {q} has {an(x)}, so the {x} is in the {there}.",
        f"{p} went to the {here}. there {p} met {q}. both are in the {here}.",
        f"{p} has a {color} {x}. the {x} of {p} is {color}.",
        f"{p} gave the {x} to {q}. now {q} has the {x}.",
        f"{p} has {an(x)} and {q} has {an(y)}. {p} takes the {y} from {q}. now {p} has the {x} and the {y}.",
        f"on {day}, {p} {verb} in the {here}. the other days {p} {verb} in the {there}.",
        f"in {month} {p} travels to the {r.choice(w.directions)}. it is {w.seasons[month]}.",
        f"{p} {r.choice(['carries', 'holds', 'keeps', 'owns'])} {an(x)}. so {p} has the {x}.",
        f"{p} {r.choice(['waits', 'sits', 'stays', 'stands'])} in the {here}. so {p} is in the {here}.",
        f"{p} {r.choice(['offered', 'sent', 'passed'])} the {x} to {q}. so {q} has the {x}.",
        f"{p} is older than {q}. so {q} is younger than {p}.",
        f"{p} is taller than {q}. so {q} is shorter than {p}.",
        f"{p} bought {an(x)} in the {here} and {an(y)} in the {there}. the {y} comes from the {there}.",
    ])  # fmt: skip


def echo(w: World, r: random.Random) -> str:
    """Words repeated, reversed and spelled, many of them made up, so that copying works on unknown words."""
    x, y, z = (nonce(r) if r.random() < 0.5 else r.choice(w.words) for _ in range(3))
    p, q = r.sample(w.all.people, 2)
    return r.choice([
        f"{p} said {x}. {q} said {x} too.",
        f"{p} said {x} {y}. {q} said {x} {y} too.",
        f"{x} {y} {z} again and again: {x} {y} {z}.",
        f"{x} and {y}, then {y} and {x}.",
        f"{x} is spelled {' '.join(x)}.",
        f"in the row {x} {y} {z}, {x} comes first and {z} comes last.",
        f"{p} is called {x}. hello {x}.",
        f"{p} wrote {x}, {q} wrote {y}. so {y} is from {q}.",
    ])  # fmt: skip


def listing(w: World, r: random.Random) -> str:
    """Members of a kind."""
    kind = r.choice(sorted(set(w.all.kinds.values())))
    names = [x for x, k in w.all.kinds.items() if k == kind]
    return r.choice(["here is {k}: {x}.", "of the kind {k}: {x}.", "{x} are of the kind {k}."]).format(
        k=kind, x=series(r.sample(names, r.randint(2, 4)))
    )


def chatter(w: World, r: random.Random) -> str:
    """Any words in plain frames: makes every word of the vocabulary known a little."""
    x, y, z = (r.choice(w.plain if r.random() < 0.5 else w.words) for _ in range(3))
    p, q = r.sample(w.all.people, 2)
    return r.choice([
        f"{p} talks about {x} and {y}. {q} prefers {z}.",
        f"the {x} of {p} is on the table.",
        f"{p} wrote a {x} about {y}. {q} read the {x}.",
        f"somebody mentioned {x}, {y} and {z}.",
        f"{x} or {y}, {p} does not know.",
        f"{p} and {q} often say {x}, and sometimes {y}.",
    ])  # fmt: skip


#: Kind of document → how often it is drawn.
DOCUMENTS: dict[Document, float] = {
    animal: 3, food: 3, thing: 3, geography: 3, person: 3, job: 1.5, calendar: 2, arithmetic: 1.5, meaning: 4,
    emotion: 3, topic: 3, review: 4, story: 4, echo: 3, listing: 1.5, chatter: 2,
}  # fmt: skip
