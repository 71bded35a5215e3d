"""Why an event became no row.

In:        decoders, where it is known.
Out:       an error with its class; the pipeline counts classes and goes on.
Elsewhere: the classes are those that the golden data names.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorClass(StrEnum):
    """Kinds of events that become no row."""

    EMPTY_DATA = "empty_data"
    INVALID_TYPE = "invalid_type"
    """A perf record of a type that the datapath does not send."""
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    EVENT_SKIPPED = "event_skipped"
    """Well formed, but of a workload that is not ours to show: a socket of an unknown cgroup."""
    INVALID_AGENT_MESSAGE_TYPE = "invalid_agent_message_type"
    DECODE_ERROR = "decode_error"


class DecodeError(ValueError):
    """An event that became no row."""

    def __init__(self, error_class: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.error_class = error_class
