"""How a study came out, as ``run``, ``demo`` and ``report`` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softstart.cli.terminal import console, say, show_table
from softstart.errors import SoftstartError

if TYPE_CHECKING:
    from softstart.study import Outcome


_WARNINGS = 4
"""With more warnings than these, the others are left to the page."""


def show_outcome(outcome: Outcome) -> None:
    """Print the comparison and the files it was written to.

    Raises:
        SoftstartError: there is no result yet, or part of the study failed.
    """
    from softstart.report.console import comparison_table, findings
    from softstart.study.results.folder import REPORT, RESULTS

    if outcome.rows.empty:
        raise SoftstartError(f"no result yet ({'; '.join(outcome.failures) or 'nothing is computed'})")
    show_table(comparison_table(outcome.rows, outcome.arg, console().width, appearance=outcome.appearance))
    result, *warnings = findings(outcome.rows, outcome.arg, appearance=outcome.appearance)
    for line in (result, *warnings[:_WARNINGS]):
        say(line)
    if (more := len(warnings) - _WARNINGS) > 0:
        say(f"{more} more warnings are at the top of {REPORT}")
    for note in outcome.notes:
        say(note)
    for name in (REPORT, RESULTS):
        say(str(outcome.folder / name))
    if outcome.failures:
        raise SoftstartError(
            f"{len(outcome.failures)} part(s) of the study failed: {outcome.failures[0]}",
            fix="Everything else is kept; run again after fixing.",
        )
