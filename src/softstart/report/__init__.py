"""Results for people: a table in the terminal, a self-contained HTML page."""

from softstart.report.console import comparison_table
from softstart.report.html import write_report

__all__ = ["comparison_table", "write_report"]
