"""A console whose texts cannot steer the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from softstart.cli.visible import visible


class PlainConsole(Console):
    """Prints control characters of names as visible escapes; colors and bars of its own stay."""

    def render_str(self, text: str, **settings: object) -> Text:
        """A string as text; rich would drop some control characters without a word."""
        return super().render_str(visible(text), **settings)  # type: ignore[arg-type]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is printed, in segments; those that steer the terminal are rich's own."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text), style)
