"""``softstart tiny``: make the embedded model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softstart.cli.resuming import resumable
from softstart.cli.terminal import say

tiny_app = typer.Typer(no_args_is_help=True, help="The embedded tiny language model.")


@tiny_app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the finished model.")],
    tokens: Annotated[
        int, typer.Option(min=1, help="Training tokens; the shipped model saw 30 million.")
    ] = 30_000_000,
    seed: Annotated[int, typer.Option(help="Seed of text, weights and order; the shipped model's is 0.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; the shipped model was trained with one.")
    ] = 1,
) -> None:
    """Regenerate the embedded backbone. This makes its text, tokenizer and weights. Safe to kill and repeat.

    \b
    Examples:
      softstart tiny pretrain --out pretrained
      softstart tiny pretrain --out pretrained --tokens 3000000
    """
    from softstart.tiny import pretrain as training

    resumable((out / training.STATE).exists)
    training.pretrain(out, tokens=tokens, seed=seed, threads=threads, log=say)
