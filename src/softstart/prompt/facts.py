"""The facts in a prompt file, and their types: everything in it is checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from softstart.errors import SoftstartError

Count = Annotated[int, Field(gt=0, le=1_000_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Score(_Strict):
    task: str
    metric: str
    score: float
    low: float | None = None
    high: float | None = None


class _Info(_Strict):
    method: str | None = None
    algorithm: str | None = None
    setting: str | None = None
    task: str | None = None
    source: list[str] | None = None
    metric: str | None = None
    input: str | None = None
    output: str | None = None
    template: str | None = None
    labels: list[str] | None = None
    label: str | None = None
    label_words: dict[str, str] | None = None
    scoring: str | None = None
    max_input_tokens: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    max_new_tokens: Annotated[int, Field(gt=0, le=100_000)] | None = None
    scores: list[_Score] | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    embedding_steps: Count | None = None
    query_size: Count | None = None
    lr: float | None = None
    note: str | None = None


class _Kind(_Strict):
    name: str
    layers: Count
    heads: Count
    head_width: Count


class _Facts(_Strict):
    backbone: str = ""
    backbone_digest: str = ""
    placement: str = "prefix"
    revision: str = ""
    tokenizer_digest: str = ""
    peft_task: str = ""
    weights: str = ""
    kind: _Kind | None = None
    info: _Info = _Info()


def check_facts(facts: Mapping[str, Any], where: str) -> None:
    """Refuse facts of other types than Softstart writes.

    Raises:
        SoftstartError: with the name of the first field that is wrong.
    """
    try:
        _Facts.model_validate(facts)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise SoftstartError(
            f"its header is not one that Softstart writes ({field}: {first['msg']})",
            where=where,
            fix="Give a prompt written by Softstart or a PEFT prompt-tuning adapter.",
        ) from problem
