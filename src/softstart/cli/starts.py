"""``softstart starts``: the learned starts that the package brings along."""

from __future__ import annotations

from softstart.cli.terminal import new_table, say, show_table


def starts() -> None:
    """List the learned starts that are shipped. adapt --init takes their names.

    The table also says what each gained over a plain start.

    \b
    Examples:
      softstart starts
    """
    from softstart.prompt import SoftPrompt
    from softstart.prompt.shipped import GAINED, shipped_starts

    table = new_table("name", "backbone", "rows", "placement", "learned by", "from", "points gained", "where")
    for name, file in shipped_starts().items():
        prompt = SoftPrompt.load(file)
        info, gained = prompt.info, prompt.info[GAINED]
        table.add_row(
            name, prompt.backbone, str(len(prompt.tensor)), prompt.placement, info["method"],
            f"{len(info['source'])} tasks",
            f"{gained['points']:+.1f} ({gained['low']:+.1f} to {gained['high']:+.1f})",
            f"{info['setting']}: {gained['tasks']} tasks, {gained['samples']} samples, "
            f"{gained['seeds']} seed{'s' if gained['seeds'] > 1 else ''}, {gained['steps']} steps",
        )  # fmt: skip
    show_table(table)
    say("points: the mean test score over target tasks minus that of plain prompt tuning (95 % interval)")
