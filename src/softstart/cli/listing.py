"""Help texts that list what a registry holds: ``<algorithms>`` stands for the registered names.

Registries are read when help is asked for, so that no command loads them, and torch with them, without need.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from typer.core import TyperCommand

REGISTRIES = {
    "algorithms": "softstart.training.methods:LEARNERS",
    "availability": "softstart.gym.listing:AVAILABILITY",
    "executors": "softstart.study.run.run:EXECUTORS",
    "intervals": "softstart.analysis:INTERVALS",
    "placements": "softstart.prompt:PLACEMENTS",
    "kinds": "softstart.prompt:KINDS",
    "scorings": "softstart.training.evaluation:SCORINGS",
    "metrics": "softstart.gym.metrics:METRICS",
    "trackers": "softstart.study.run.trackers:TRACKERS",
    "gpus": "softstart.study.cost.gpu_hours:PEAKS",
    "starts": "softstart.prompt:usages",
}
"""What a placeholder stands for: the names in a registry, or what a function gives."""


class ListingCommand(TyperCommand):
    """A command whose help lists what is registered."""

    def get_help(self, ctx: Any) -> str:
        """The help text, its placeholders replaced."""
        list_registered(self)
        return super().get_help(ctx)


def list_registered(command: Any) -> None:
    """Replace the placeholders in the help of a command's options."""
    for parameter in command.params:
        if template := vars(parameter).setdefault("help_template", getattr(parameter, "help", None)):
            parameter.help = re.sub(r"<(\w+)>", lambda match: registered(match[1]), template)


def registered(placeholder: str) -> str:
    """The names that a placeholder stands for."""
    module, _, name = REGISTRIES[placeholder].partition(":")
    names = getattr(import_module(module), name)
    return ", ".join(names() if callable(names) else names)
