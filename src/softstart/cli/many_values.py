"""Options of the command line that take several values in a row."""

from __future__ import annotations

from typing import Any

from softstart.cli.listing import ListingCommand


class ManyValues(ListingCommand):
    """Lets ``--seeds`` and options of labels take all values that follow: ``--seeds 13 21 42``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values."""
        spread: list[str] = []
        option = ""
        for arg in args:
            if arg.startswith("--"):
                option = arg if arg in ("--seeds", "--labels", "--multi-label") else ""
                if not option:
                    spread.append(arg)
            elif option and (option != "--seeds" or arg.isdigit()):
                spread += [option, arg]
            else:
                option = ""
                spread.append(arg)
        return super().parse_args(ctx, spread)
