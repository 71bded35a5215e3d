"""The one error that ends a process: a line for a person, exit code 1."""

from __future__ import annotations


class Failure(Exception):
    """Something outside our code is in the way. The text names the thing and the remedy, on one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())
