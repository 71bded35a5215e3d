"""What is wrong with a document.

In:        pydantic's errors.
Out:       one line for each bad field, with its path as users know it; InvalidResource, which carries them.
Elsewhere: manifests.py says which document it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError


class InvalidResource(ValueError):
    """A document that cannot be accepted. The text names the file, the document and the field, on one line."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = tuple(" ".join(one.split()) for one in problems)
        """Everything that is wrong, the text being the first of it."""

    def __str__(self) -> str:
        return self.problems[0]


def first_error(error: ValidationError) -> str:
    """`path: what is wrong`, for the first mistake."""
    return all_errors(error)[0]


def all_errors(error: ValidationError) -> list[str]:
    """`path: what is wrong`, one for each bad field."""
    found: dict[str, str] = {}
    told = error.errors(include_url=False)
    paths = [_path(details["loc"]) for details in told]
    for details in told:
        message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = message[:1].lower() + message[1:]
        if details["type"] not in {"value_error", "missing"}:
            message += f", got {str(details['input'])[:80]!r}"
        path = _path(details["loc"])
        # pydantic counts only the good ones of a list, and calls a list of one bad item too short.
        if details["type"] == "too_short" and any(other.startswith(f"{path}[") for other in paths):
            continue
        # A field that may be one of several types is wrong once for each of them.
        found.setdefault(path, f"{path}: {message}" if path else message)
    return list(found.values())


def _path(parts: Sequence[int | str]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part in {"[key]", "constrained-int", "constrained-str"} or "[" in part:
            continue  # pydantic's own words for the branch of a union
        else:
            text += f".{part}" if text else part
    return text
