"""Results for people: a table in the terminal, a self-contained HTML page."""

from softstart.report.console import comparison_table
from softstart.report.html import write_report
from softstart.report.style import Appearance

__all__ = ["Appearance", "comparison_table", "write_report"]
