"""Softstart: learn where a soft prompt should start (meta prompt tuning)."""

__version__ = "0.1.0"
