"""Parts of a study that are mappings of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from softstart.training.configs import STRICT


class SettingSpec(BaseModel):
    """Source and target tasks under a name."""

    model_config = STRICT

    name: str = "custom"
    """For tables and file names."""
    source: list[str] = []
    """Tasks to learn a start from."""
    target: Annotated[list[str], Field(min_length=1)]
    """Tasks to adapt it to."""
