"""Commands share options and consoles through modules made for it, never through each other."""

from __future__ import annotations

from helpers.imports import imports
from helpers.paths import ROOT

SHARED = {
    "display",
    "listing",
    "many_values",
    "opening",
    "tuned",
    "options",
    "outcome",
    "plain_console",
    "resuming",
    "terminal",
    "visible",
}


def test_commands_do_not_import_each_other():
    graph = imports(ROOT / "src" / "softstart", type_checking=True)
    inside = {
        name.removeprefix("softstart.cli."): {
            other.removeprefix("softstart.cli.") for other in others if other.startswith("softstart.cli.")
        }
        for name, others in graph.items()
        if name.startswith("softstart.cli.")
    }
    commands = inside.keys() - SHARED - {"app"}
    assert {"run", "study", "learn", "prompt"} < commands
    assert {name: inside[name] - SHARED for name in commands | SHARED if inside[name] - SHARED} == {}
    assert inside["app"] >= commands
