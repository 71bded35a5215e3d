"""Files that others read while they are written.

In:        a path and what it is to hold.
Out:       the file, replaced in one step.
Elsewhere: main.py writes state.json and agent.json; mesh/dns keeps names, mesh/auth keys; mesh/envoy writes Envoy's
           resources.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from service.failure import Failure


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file; readers see the old or the new one. Raises: Failure when it cannot be written."""
    write_text_atomically(path, json.dumps(content, separators=(",", ":")))


def write_text_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """As `write_atomically`, of any text; `mode` as of open(2)."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An earlier one may be open to others.
        fresh.unlink(missing_ok=True)
        with open(fresh, "x", opener=partial(os.open, mode=mode)) as file:
            file.write(text)
        os.replace(fresh, path)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}; check the folder's owner and free space") from error
