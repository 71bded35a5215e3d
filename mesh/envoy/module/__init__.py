"""What runs inside Envoy: C, built into a library that Envoy loads.

In:        nothing.
Out:       where the library is.
Elsewhere: records.py has Envoy load it; ring.py reads what it writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from service.failure import Failure

NAME: Final = "flowscope_records"
FOLDER: Final = Path(__file__).parent / "build"
ENVIRONMENT: Final = {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(FOLDER)}
"""What an Envoy needs to find it."""
_LIBRARY: Final = FOLDER / f"lib{NAME}.so"


def identity() -> str:
    """Tells one build from another. Raises: Failure when there is none."""
    try:
        found = _LIBRARY.stat()
    except OSError as error:
        raise Failure(f"{_LIBRARY}: {error.strerror}; run `make setup`, which builds it") from error
    return f"{found.st_size} {found.st_mtime_ns}"
