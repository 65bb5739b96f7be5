"""``softstart inspect``: what a prompt is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softstart.cli.opening import backbone_of, existing, load_prompt
from softstart.cli.options import PlacementName, PromptBackbone
from softstart.cli.terminal import progress_bar, say


def inspect(
    prompt: Annotated[str, typer.Argument(help="A prompt: file, folder or hub id.")],
    before: Annotated[str | None, typer.Option(help="An earlier prompt, such as its start.")] = None,
    backbone: PromptBackbone = None,
    placement: PlacementName = None,
    nearest: Annotated[int, typer.Option(min=1, help="Vocabulary words per row.")] = 3,
    study: Annotated[
        Path | None, typer.Option(help="A study folder: also measure MAML's inner loop on its sources.")
    ] = None,
) -> None:
    """Show norms, nearest words and movement of a prompt. --study also measures what second order adds.

    \b
    Examples:
      softstart inspect start
      softstart inspect tuned --before start --nearest 5
    """
    from softstart.diagnostics.inspection import described

    loaded = load_prompt(prompt, placement=placement)
    model = backbone_of(loaded, backbone)
    tensor = loaded.check_for(model, prompt)
    earlier = load_prompt(before, placement=placement).check_for(model, before) if before else None
    for line in described(model, tensor, earlier, nearest=nearest):
        say(line)
    if study:
        from softstart.diagnostics.second_order import study_second_order

        with progress_bar("measuring meta-gradients"):
            orders = study_second_order(existing(study), tensor)
        for method, measured in orders.items():
            say(
                f"{method}: the inner loop moves the prompt {100 * measured.displacement:.3g} % of its norm; "
                f"exact and first-order meta-gradient: cosine {measured.cosine:.4f}, "
                f"lengths {measured.ratio:.3g} to 1"
            )
