"""Logs: constant phrases plus fields, one line each, on stderr. Set up once, in the entry point."""

from __future__ import annotations

import sys

import structlog

from service.failure import Failure

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def setup(level: str = "info", json: bool = False) -> None:
    """Send logs of `level` and above to stderr, as key=value text or as JSON lines.

    Raises: Failure for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise Failure(f"unknown log level {level!r}; use one of {', '.join(LEVELS)}")
    shape: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level.lower()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
