"""Open what a command was given: a study folder, a prompt, the backbone it belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softstart.cli.terminal import progress_bar, warn
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.gym.tables import RawData
    from softstart.prompt import SoftPrompt
    from softstart.training.evaluation import Evaluation


def existing(folder: Path) -> Path:
    """The study folder, if there is one.

    Raises:
        SoftstartError: there is none.
    """
    if not folder.is_dir():
        raise SoftstartError("no such study folder", where=str(folder), fix="Give the --out of a run.")
    return folder


def load_prompt(source: str, revision: str | None = None, placement: str | None = None) -> SoftPrompt:
    """A prompt from a file, a folder or the hub; a note about its file goes to standard error.

    Raises:
        SoftstartError: it cannot be read, or its file says another placement than ``placement``.
    """
    from softstart.prompt import SoftPrompt

    prompt = SoftPrompt.from_pretrained(source, revision=revision)
    if "note" in prompt.info:
        warn(prompt.info["note"])
    if placement is None or placement == prompt.placement:
        return prompt
    if prompt.backbone or prompt.placement != "prefix":  # a file that says nothing counts as a prefix
        raise SoftstartError(
            f"the prompt was trained as {prompt.placement}, not as {placement}",
            where=source,
            fix="Leave --placement out.",
        )
    return replace(prompt, placement=placement)


def table(
    data: str,
    input: str | None,
    output: str | None,
    label: str | None,
    labels: list[str] | None,
    no_header: bool,
    multi_label: list[str] | None = None,
    **more: Any,
) -> RawData:
    """A table and how it is read, from the options that say so; ``more`` are other fields of ``RawData``.

    Raises:
        SoftstartError: as ``RawData``, or no such metric.
    """
    from softstart.gym.metrics import METRICS
    from softstart.gym.tables import RawData, label_words

    if more.get("metric"):
        METRICS.find(more["metric"], "--metric")
    more |= {"multi_label": tuple(multi_label or ()), "header": False if no_header else None}
    return RawData(data, input=input, output=output, label=label, labels=label_words(labels or []), **more)


def scored_by(scoring: str | None) -> Evaluation:
    """How predictions for own rows are made; by default labels are ranked.

    Raises:
        SoftstartError: no such scoring.
    """
    from softstart.training.evaluation import SCORINGS
    from softstart.yourtasks.adapt import RANKED

    SCORINGS.find(scoring or RANKED.scoring, "--scoring")
    return replace(RANKED, scoring=scoring or RANKED.scoring)


def backbone_of(
    prompt: SoftPrompt | None,
    name: str | None,
    device: str | None = None,
    text_cache: int | None = None,
    placement: str | None = None,
    kind: str | None = None,
    revision: str | None = None,
) -> Any:
    """The backbone of this name; without a name, the one the prompt was made on.

    ``revision`` is by default that of the prompt, if it was made on the same backbone. ``text_cache``: MiB
    for texts that it has read, see ``Backbone.keep_texts``. Without a prompt, prompts go where ``placement``
    says. They are of this ``kind``, by default that of the prompt.

    Raises:
        SoftstartError: the prompt does not say, or the backbone cannot be loaded.
    """
    from softstart.backbone import Backbone
    from softstart.prompt.placement import registered_placement

    name = name or (prompt.backbone if prompt else None)
    if not name:
        raise SoftstartError("the prompt does not say what backbone it was made on", fix="Give --backbone.")
    same = prompt is not None and name == prompt.backbone
    where = registered_placement(prompt.placement) if prompt else placement or "prefix"
    version = revision or ((prompt.revision or None) if prompt and same else None)
    prompts = kind_named(kind, prompt)
    with progress_bar(f"loading {name}"):
        backbone = Backbone.from_pretrained(
            name, device=device, revision=version, placement=where, prompt_kind=prompts
        )
    backbone.keep_texts(text_cache)
    return backbone


def kind_named(kind: str | None, prompt: SoftPrompt | None) -> str:
    """The kind of prompts that ``--kind`` names; by default that of the prompt to begin with.

    Raises:
        SoftstartError: there is no such kind.
    """
    from softstart.prompt import KINDS

    if kind is not None:
        KINDS.find(kind, "--kind")
        return kind
    return prompt.kind.name if prompt else "embeddings"


def check_lengths(too_long: int, limit: int, strict: bool, template: str = "{input}") -> None:
    """Warn that inputs were cut, and with them what stands behind the last column of a row's template.

    Raises:
        SoftstartError: inputs are too long and ``strict`` is set.
    """
    if not too_long:
        return
    if strict:
        raise SoftstartError(
            f"{too_long} inputs are longer than {limit} tokens",
            fix="Raise --max-input-tokens within the model's window.",
        )
    warn(f"{too_long} inputs are longer than {limit} tokens and were cut{_end_lost(template)}")


def _end_lost(template: str) -> str:
    from softstart.gym.template import Template

    end = (Template(template).parts or [""])[-1]
    if not isinstance(end, str) or not end.strip():
        return ""
    return f", the end of --input ({end.strip()!r}) too: put it before the text"
