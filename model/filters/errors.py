"""The one error of this package."""

from __future__ import annotations


class InvalidFilter(ValueError):
    """A filter that cannot be evaluated. Its text, Hubble's for the same mistake, is shown to the user as it is."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """Name of the field in flow.FlowFilter."""
