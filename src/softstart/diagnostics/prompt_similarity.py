"""How similar stored prompts are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from softstart.analysis.similarity import prompt_similarity
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt
from softstart.prompt.formats import OF, TENSOR, is_prompt_folder, names_in, prompts_in


def compare_prompts(sources: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Cosines between stored prompts, as tables prompts by prompts.

    ``flat`` compares entry by entry, ``mean`` the averages over rows, ``matched`` entry by entry after the
    rows of one prompt are put in the best order (left out without scipy); see
    ``softstart.analysis.similarity.prompt_similarity``.

    Args:
        sources: files, folders and hub ids of prompts, ``FILE#NAME``, safetensors files of several prompts,
            and folders of prompts.

    Raises:
        SoftstartError: a prompt cannot be read, two have one name or differ in shape, or there is only one.
    """
    found: dict[str, SoftPrompt] = {}
    for source in sources:
        for name, each in _each(source, alone=len(sources) == 1):
            if name in found:
                raise SoftstartError(f"the prompt '{name}' is given twice", fix="Name every prompt once.")
            found[name] = SoftPrompt.from_pretrained(each)
    if len(found) < 2:
        raise SoftstartError(
            "one prompt alone has nothing to be compared with",
            where=" ".join(sources),
            fix="Give a second prompt, a folder of prompts or a file that holds several.",
        )
    (first, one), *others = found.items()
    for name, other in others:
        if other.tensor.shape != one.tensor.shape:
            shapes = [list(each.tensor.shape) for each in (one, other)]
            raise SoftstartError(
                f"'{first}' is {shapes[0]} and '{name}' is {shapes[1]}",
                fix="Compare prompts of one length and one backbone.",
            )
    stack = np.stack([each.tensor.numpy().astype(np.float64) for each in found.values()])
    ways = ["flat", "mean", *(["matched"] if find_spec("scipy") else [])]
    names = list(found)
    return {way: pd.DataFrame(prompt_similarity(stack, way), index=names, columns=names) for way in ways}


def _each(source: str, *, alone: bool) -> Iterator[tuple[str, str]]:
    """The prompts that a source stands for: their names, short if it is ``alone``, and what loads them."""
    path = Path(source)
    if is_prompt_folder(path):
        for name, file in prompts_in(path).items():
            yield name if alone else str(file), str(file)
    elif (
        path.suffix == ".safetensors" and path.is_file() and (names := names_in(path)) not in ((), (TENSOR,))
    ):
        for name in names:
            yield name if alone else f"{source}{OF}{name}", f"{source}{OF}{name}"
    else:
        yield source, source


def nearest_prompts(similar: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """For every prompt the one most like it, by the last of the ways, and how much by each.

    Returns:
        ``prompt``, ``nearest`` and a column for each way of ``compare_prompts``.
    """
    *_, decisive = similar.values()
    names = decisive.index.to_numpy()
    apart = decisive.to_numpy() - np.diag(np.full(len(names), np.inf))
    nearest = apart.argmax(axis=1)
    cosines = {way: of.to_numpy()[np.arange(len(names)), nearest] for way, of in similar.items()}
    return pd.DataFrame({"prompt": names, "nearest": names[nearest], **cosines})
