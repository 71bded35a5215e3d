"""The status codes of gRPC and the one error that carries them, on both sides of the wire."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """gRPC status codes. Source: the gRPC documentation, "Status codes and their use in gRPC"."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def text(self) -> str:
        """The name that Go's gRPC prints (`Canceled`, `InvalidArgument`); Hubble's users and scripts know these."""
        if self is Status.CANCELLED:
            return "Canceled"
        return "OK" if self is Status.OK else self.name.title().replace("_", "")

    @classmethod
    def of(cls, number: int) -> Status:
        """The code of a number from the wire; numbers that gRPC does not define count as UNKNOWN."""
        return cls(number) if 0 <= number <= 16 else cls.UNKNOWN


class RpcError(Exception):
    """A call that ended with another status than OK. Handlers raise it; callers get it."""

    def __init__(self, code: Status, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"rpc error: code = {self.code.text} desc = {self.message}"
