"""The one error that ends a process: a line for a person, exit code 1."""

from __future__ import annotations


class Failure(Exception):
    """Something outside our code is in the way. The text names the thing and the remedy, on one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class Failures(Failure):
    """Several things are wrong at once: one line each."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = tuple(" ".join(line.split()) for line in lines)

    def __str__(self) -> str:
        return "\n  ".join(self.lines)
