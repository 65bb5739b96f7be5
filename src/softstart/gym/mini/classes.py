"""Sentiment, emotion, topic and category tasks. One function is one task: it makes an input of a class."""

from __future__ import annotations

from softstart.gym.mini.spec import Draw, classification
from softstart.tiny.documents import an

EMOTIONS = ("joy", "sadness", "anger", "fear", "surprise", "love")
TOPICS = ("sports", "science", "music", "weather", "travel", "business", "health", "politics")
SIGNS = ("positive", "negative")


def _praise(d: Draw, sign: str, n: int = 1) -> list[str]:
    return d.some(d.p.positive if sign == "positive" else d.p.negative, n)


def _noisy(d: Draw, text: str) -> str:
    return d.r.choice([f"{text} {d.aside()}", f"{d.aside()} {text}", text])


@classification("sentiment", SIGNS)
def film_review(d: Draw, key: str) -> str:
    """Opinions on films."""
    x, y = _praise(d, key, 2)
    who, film = d.one(d.p.people), d.one(["film", "movie", "play", "show"])
    return "review: " + _noisy(d, d.r.choice([
        f"what a {x} {film}, seriously.", f"{who} told us how {x} and {y} the {film} looks.",
        f"honestly, this {film} is {x}, even {y}.", f"{x}! never again such {an(y)} {film}.",
    ]))  # fmt: skip


@classification("sentiment", {"positive": "recommend", "negative": "never"})
def meal_review(d: Draw, key: str) -> str:
    """Opinions on meals, as advice."""
    x, meal = _praise(d, key)[0], d.one(["meal", "soup", "dinner"])
    food = d.one(d.p.foods)
    return "comment: " + d.r.choice([
        f"we had {food}, and such a {meal} with {food} is {x}.", f"frankly a {x} {meal}, even the {food}.",
        f"{x} {food}, and the {meal} of {d.one(d.p.people)} is {x} too.",
    ])  # fmt: skip


@classification("sentiment", {"positive": "good", "negative": "bad", "neutral": "average"})
def three_verdicts(d: Draw, key: str) -> str:
    """Praise, blame or neither."""
    x = d.one(d.w.neutral) if key == "neutral" else _praise(d, key)[0]
    item = d.one(d.w.reviewed)
    return "report: " + _noisy(d, d.r.choice([f"my new {item} is {x}.", f"{x}, that is this {item}."]))


@classification("sentiment", {"positive": "green", "negative": "red"})
def verdict_lights(d: Draw, key: str) -> str:
    """Opinions as the color of a traffic light."""
    x, y = _praise(d, key, 2)
    item = d.one(d.w.reviewed)
    return "post: " + d.r.choice([
        f"{d.one(d.p.people)} wants a {item} less {d.one(d.w.neutral)}, and this one is {x} and {y}.",
        f"{x}, {y}, but also {d.one(d.w.neutral)}: this {item}.",
    ])  # fmt: skip


@classification("emotion", EMOTIONS)
def diary_emotion(d: Draw, key: str) -> str:
    """What happened to somebody, or how they look."""
    happened = d.one([*d.p.events[key], *(f"looks {x}" for x in d.p.feelings[key])])
    return "diary: " + _noisy(
        d, f"this {d.one(['morning', 'evening', 'week'])} {d.one(d.p.people)} {happened}."
    )


@classification("emotion", {"joy": "north", "sadness": "south", "anger": "east", "fear": "west"})
def mood_compass(d: Draw, key: str) -> str:
    """Feelings under arbitrary label words."""
    return f"message: {d.one(d.p.people)} is so {d.one(d.p.feelings[key])} near the {d.one(d.w.places)}."


@classification("topic", TOPICS)
def headline_topic(d: Draw, key: str) -> str:
    """Topics of headlines."""
    x, y = d.some(d.p.topics[key], 2)
    return "headline: " + d.r.choice([
        f"no {x} without {an(y)}", f"{x} and {y} in {d.one(d.p.cities)}",
        f"{d.one(d.p.people)} wants a new {x}, but the {y} is late",
    ])  # fmt: skip


@classification("topic", {"sports": "alpha", "music": "beta", "weather": "gamma", "business": "delta"})
def topic_codes(d: Draw, key: str) -> str:
    """Topics under arbitrary label words."""
    return f"notice: {d.one(d.p.people)} told {d.one(d.p.people)} about the {d.one(d.p.topics[key])}."


@classification("category", ("bird", "fish", "insect", "mammal", "reptile"))
def animal_class(d: Draw, key: str) -> str:
    """The class of an animal."""
    x = d.one([x for x, f in d.p.animals.items() if f[0] == key])
    return f"note: {d.one(d.p.people)} saw the {x} behind the {d.one(d.w.places)}."


@classification("category", ("tool", "vehicle", "garment", "furniture", "instrument", "toy"))
def shop_section(d: Draw, key: str) -> str:
    """The kind of two things."""
    return f"list: {', '.join(d.some(d.keys(d.p.things, key), 2))} for {d.one(d.p.people)}"


@classification("category", {"fruit": "up", "vegetable": "down", "drink": "left", "dessert": "right"})
def food_shelf(d: Draw, key: str) -> str:
    """The kind of a food under arbitrary label words."""
    x = d.one([x for x, f in d.p.foods.items() if f[0] == key])
    return f"item: {d.one(d.w.numbers[2:])} {x} for {d.one(d.p.people)}"


@classification("category", ("farm", "forest", "sea", "river", "desert", "jungle", "meadow"))
def where_to_look(d: Draw, key: str) -> str:
    """Where an animal lives."""
    x = d.one([x for x, f in d.p.animals.items() if f[1] == key])
    return f"letter: dear {d.one(d.p.people)}, {d.one(d.p.people)} wants to find {an(x)}."


@classification("category", {"small": "once", "big": "twice"})
def size_code(d: Draw, key: str) -> str:
    """Small or big animals under arbitrary label words."""
    x = d.one([x for x, f in d.p.animals.items() if f[2] == key])
    return f"entry: the {x} of {d.one(d.p.people)} came from the {d.one(d.w.directions)}."


@classification("category", ("winter", "spring", "summer", "autumn"))
def season_of_party(d: Draw, key: str) -> str:
    """The season of a month."""
    month = d.one(d.keys(d.w.seasons, key))
    return f"notice: {d.one(d.p.people)} and {d.one(d.p.people)} are together again in {month}."


@classification("category", ("zero", "two", "four", "six"))
def leg_count(d: Draw, key: str) -> str:
    """How many legs an animal has."""
    x = d.one([x for x, f in d.p.animals.items() if d.w.legs[f[0]] == key])
    return f"record: {d.one(d.p.people)} looks at the legs of {d.one(['one', 'some', 'this'])} {x}."
