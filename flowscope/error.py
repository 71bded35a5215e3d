"""The one error that callers of the client handle."""

from __future__ import annotations


class FlowscopeError(Exception):
    """A question that could not be asked or was not answered.

    `code` is a gRPC status in Go's spelling (`Unavailable`, `InvalidArgument`), `message` one line.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
