"""Candidate targets among sentiment, emotion, topic and category tasks, made of held-back entities.

Each has something that its sources do not: a distractor, two steps, label words that say nothing, more
classes. One function is one task.
"""

from __future__ import annotations

from functools import partial

from softstart.gym.mini.classes import EMOTIONS, SIGNS, TOPICS
from softstart.gym.mini.spec import Draw, classification
from softstart.tiny.documents import an

candidate = partial(classification, candidate=True)

CODES = ("alpha", "beta", "gamma", "delta", "king", "queen")
OTHER = {"positive": "negative", "negative": "positive"}


def _verdict(d: Draw, sign: str) -> str:
    return d.one(d.p.positive if sign == "positive" else d.p.negative)


def _felt(d: Draw, emotion: str) -> str:
    return d.one([*d.p.events[emotion], *(f"looks {x}" for x in d.p.feelings[emotion])])


def _mixed(classes: tuple[str, ...], codes: tuple[str, ...]) -> dict[str, str]:
    """Natural label words for the first classes, codes for the last ones."""
    return dict(zip(classes, (*classes[: -len(codes)], *codes), strict=True))


@candidate("sentiment", SIGNS)
def aspect_sentiment(d: Draw, key: str) -> str:
    """The opinion on one of two things."""
    item, noise = d.some(d.w.reviewed, 2)
    parts = [f"the {item} is {_verdict(d, key)}", f"the {noise} is {_verdict(d, OTHER[key])}"]
    d.r.shuffle(parts)
    joint = d.one([", however ", ", but ", " although "])
    return f"text: {joint.join(parts)}. item: {item}"


@candidate("sentiment", {"positive": "sun", "negative": "moon"})
def final_word(d: Draw, key: str) -> str:
    """The opinion after an expectation, under arbitrary label words."""
    item, who = d.one(d.w.reviewed), d.one(d.p.people)
    x, y = _verdict(d, OTHER[key]), _verdict(d, key)
    return f"review: {who} expected {an(x)} {item}. {d.aside()} in the end it looks {y}."


@candidate("sentiment", {"positive": "good", "negative": "bad"})
def changed_mind(d: Draw, key: str) -> str:
    """The second of two opinions of one person."""
    x, y = _verdict(d, OTHER[key]), _verdict(d, key)
    p, item = d.one(d.p.people), d.one(d.w.reviewed)
    return f"comment: yesterday {p} wrote of {an(x)} {item}, today of {an(y)} one."


@candidate("sentiment", {"positive": "good", "negative": "bad"})
def vote_of_three(d: Draw, key: str) -> str:
    """The opinion of two of three people."""
    said = [_verdict(d, key), _verdict(d, key), _verdict(d, OTHER[key])]
    d.r.shuffle(said)
    story = " ".join(f"{p}: {x}." for p, x in zip(d.some(d.p.people, 3), said, strict=True))
    return f"post: {story} item: {d.one(d.w.reviewed)}"


@candidate("sentiment", ("positive", "negative", "mixed"))
def two_opinions(d: Draw, key: str) -> str:
    """Whether two people agree, and on what."""
    signs = [key, key] if key != "mixed" else d.r.sample(SIGNS, 2)
    (p, q), item = d.some(d.p.people, 2), d.one(d.w.reviewed)
    x, y = (_verdict(d, sign) for sign in signs)
    return f"note: {p} calls this {item} {x}, {q} calls it {y}."


@candidate("sentiment", {"positive": "like", "negative": "hate"})
def hardly_praise(d: Draw, key: str) -> str:
    """Opinions, half of them turned around by a word."""
    turned = d.coin()
    x = _verdict(d, OTHER[key] if turned else key)
    how = d.one(["hardly", "never", "neither new nor"] if turned else ["simply", "always", "both new and"])
    return f"example: for {d.one(d.p.people)} every {d.one(d.w.reviewed)} here is {how} {x}."


@candidate("emotion", EMOTIONS)
def emotion_of_other(d: Draw, key: str) -> str:
    """The emotion of one of two people."""
    p, q = d.some(d.p.people, 2)
    said = [f"{who} {_felt(d, e)}." for who, e in ((p, key), (q, d.one(EMOTIONS, key)))]
    d.r.shuffle(said)
    return f"diary: {' '.join(said)} question: {p}"


@candidate("emotion", dict(zip(EMOTIONS, CODES, strict=True)))
def emotion_codes(d: Draw, key: str) -> str:
    """Six emotions under arbitrary label words."""
    who = d.one(["uncle", "sister", "friend", "brother"])
    text = f"dear {d.one(d.p.people)}, my {who} {_felt(d, key)}."
    return f"letter: {d.one([f'{text} {d.aside()}', f'{d.aside()} {text}', text])}"


@candidate("emotion", _mixed(EMOTIONS, ("alpha", "beta")))
def mixed_moods(d: Draw, key: str) -> str:
    """Six emotions, two of them under arbitrary label words."""
    return f"report: {d.one(d.w.months)} was the month in which {d.one(d.p.people)} {_felt(d, key)}."


@candidate("emotion", ("good", "bad"))
def luck(d: Draw, key: str) -> str:
    """Whether an emotion is a pleasant one."""
    e = d.one(("joy", "love") if key == "good" else ("sadness", "anger", "fear"))
    return f"entry: so {d.one(d.p.people)} {_felt(d, e)} while {d.one(d.p.people)} was away. {d.aside()}"


@candidate("emotion", EMOTIONS)
def evening_mood(d: Draw, key: str) -> str:
    """The second of two emotions of a day."""
    first, second = _felt(d, d.one(EMOTIONS, key)), _felt(d, key)
    return f"record: this morning {d.one(d.p.people)} {first}, and this evening the same person {second}."


@candidate("emotion", ("joy", "sadness", "anger", "fear"))
def face_in_group(d: Draw, key: str) -> str:
    """The emotion of one of three people."""
    emotions = [key, *d.some({"joy", "sadness", "anger", "fear"} - {key}, 2)]
    people = d.some(d.p.people, 3)
    said = [f"{p} {d.one(d.p.feelings[e])}" for p, e in zip(people, emotions, strict=True)]
    d.r.shuffle(said)
    return f"list: {', '.join(said)}. question: how is {people[0]}?"


@candidate("topic", TOPICS)
def main_topic(d: Draw, key: str) -> str:
    """The topic of two of three nouns."""
    words = [*d.some(d.p.topics[key], 2), d.one(d.p.topics[d.one(TOPICS, key)])]
    d.r.shuffle(words)
    x, y, z = words
    return f"passage: {d.one(d.p.people)} saw {an(x)}, then {an(y)}, and finally {an(z)}."


@candidate("topic", TOPICS)
def topic_of_reader(d: Draw, key: str) -> str:
    """What one of two people reads about."""
    (p, q), other = d.some(d.p.people, 2), d.one(TOPICS, key)
    said = [f"{p} wants the {d.one(d.p.topics[key])}", f"{q} wants the {d.one(d.p.topics[other])}"]
    d.r.shuffle(said)
    return f"context: {' while '.join(said)}. question: {p}"


@candidate("topic", _mixed(TOPICS, ("sun", "moon", "king")))
def mixed_topics(d: Draw, key: str) -> str:
    """Eight topics, three of them under arbitrary label words."""
    return f"headline: nothing but {d.one(d.p.topics[key])} for {d.one(d.p.people)} this {d.one(d.w.months)}"


@candidate("topic", ("sports", "science", "money", "people"))
def broad_topics(d: Draw, key: str) -> str:
    """Two topics share a label word."""
    groups = {"sports": ("sports", "health"), "science": ("science", "weather")}
    groups |= {"money": ("business", "travel"), "people": ("music", "politics")}
    x = d.one(d.p.topics[d.one(groups[key])])
    return f"message: {d.one(d.p.people)} will find no other {x} in {d.one(d.p.cities)}."


@candidate("topic", TOPICS)
def topic_left(d: Draw, key: str) -> str:
    """The topic of the noun that remains."""
    x, y = d.one(d.p.topics[key]), d.one(d.p.topics[d.one(TOPICS, key)])
    said = d.one([f"the {x} but never the {y}", f"not the {y}, only the {x}"])
    return f"statement: {d.one(d.p.people)} heard about {said}."


@candidate("category", ("sweet", "sour", "salty", "bitter", "spicy"))
def taste_of_order(d: Draw, key: str) -> str:
    """How a food tastes."""
    x, n = d.one([x for x, f in d.p.foods.items() if f[1] == key]), d.one(d.w.numbers[2:])
    return f"record: {d.one(d.p.people)} wants {n} plates of {x} before {d.one(d.w.days)}."


@candidate("category", ("hestia", "yarrow", "uvalda", "galdor"))
def country_of_move(d: Draw, key: str) -> str:
    """The country of the second of two cities."""
    here = d.one([c for c, land in d.p.cities.items() if land != key])
    there, who = d.one(d.keys(d.p.cities, key)), d.one(d.p.people)
    return "letter: " + d.r.choice(
        [f"{who} moved from {here} to {there}.", f"{who} left {here} and moved to {there}."]
    )


@candidate("category", ("sweet", "sour", "salty", "bitter", "spicy"))
def taste_for_guest(d: Draw, key: str) -> str:
    """How the food of one of two guests tastes."""
    p, q = d.some(d.p.people, 2)
    right, wrong = ([x for x, f in d.p.foods.items() if (f[1] == key) == same] for same in (True, False))
    said = [f"the {d.one(right)} is for {p}", f"the {d.one(wrong)} is for {q}"]
    d.r.shuffle(said)
    return f"notice: {' and '.join(said)}. question: what about {p}?"


@candidate("category", ("first", "second", "equal"))
def more_legs(d: Draw, key: str) -> str:
    """Which of two animals has more legs."""
    order = ("zero", "two", "four", "six")
    legs = {x: order.index(d.w.legs[f[0]]) for x, f in d.p.animals.items()}
    while True:
        x, y = d.some(legs, 2)
        if key == ("equal" if legs[x] == legs[y] else "first" if legs[x] > legs[y] else "second"):
            return f"first: the {x} of {d.one(d.p.people)} second: the {y}"


@candidate(
    "category", _mixed(("tool", "vehicle", "garment", "furniture", "instrument", "toy"), ("up", "down"))
)
def mixed_sections(d: Draw, key: str) -> str:
    """The kind of a thing, two of six kinds under arbitrary label words."""
    x = d.one(d.keys(d.p.things, key))
    return f"post: {d.one(d.p.people)} needs {an(d.one(d.w.colors))} {x} and has {an(d.one(d.w.colors))} one."


@candidate("category", ("winter", "spring", "summer", "autumn"))
def season_of_return(d: Draw, key: str) -> str:
    """The season of the second of two months."""
    left = d.one([m for m, s in d.w.seasons.items() if s != key])
    back = d.one(d.keys(d.w.seasons, key))
    return f"message: {d.one(d.p.people)} leaves in {left} and is not home until {back}."


@candidate("category", ("big", "small", "mixed"))
def two_sizes(d: Draw, key: str) -> str:
    """Whether two animals are big, small, or one of each."""
    sizes = ("big", "small") if key == "mixed" else (key, key)
    x = d.one([x for x, f in d.p.animals.items() if f[2] == sizes[0]])
    y = d.one([y for y, f in d.p.animals.items() if f[2] == sizes[1] and y != x])
    x, y = d.r.sample([x, y], 2)
    return f"item: {an(x)} together with {an(y)} for {d.one(d.p.people)}"
