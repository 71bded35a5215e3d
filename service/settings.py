"""Settings: flags, environment and one TOML file meet in `load`; all else receives the frozen object.

Precedence, strongest first: flag, environment (FLOWSCOPE_<SECTION>_<NAME>), file ([section] table), default.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from service.failure import Failure

C = TypeVar("C")

DEFAULT_FILE = Path("/etc/flowscope/flowscope.toml")

_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field of a configuration class, as flags, files and help show it."""

    name: str
    """Field name; the flag is the same with dashes."""
    type: type
    """str, int, float, bool, or tuple (of str)."""
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return self.name.replace("_", "-")


def setting(default: Any, help: str) -> Any:
    """A dataclass field with help text. The default's type must be the annotation's."""
    return dataclasses.field(default=default, metadata={"help": help})


def settings_of(cls: type) -> list[Setting]:
    """The settings of a configuration class, in order of declaration."""
    hints = typing.get_type_hints(cls)
    return [
        Setting(field.name, _plain_type(hints[field.name]), field.default, str(field.metadata.get("help", "")))
        for field in dataclasses.fields(cls)
    ]


def load(
    cls: type[C],
    section: str,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> C:
    """Build a configuration object.

    flags   values by field name; None means "not given". Strings are converted like the environment's.
    file    TOML file; None: DEFAULT_FILE when it exists.
    Raises: Failure for an unreadable file, an unknown key or a value of the wrong type.
    """
    flags = flags or {}
    env = os.environ if env is None else env
    table = _read_table(section, file)
    known = settings_of(cls)
    unknown = set(table) - {one.name for one in known}
    if unknown:
        raise Failure(f"unknown key {sorted(unknown)[0]!r} in [{section}] of the configuration file; see --help")
    values: dict[str, Any] = {}
    for one in known:
        variable = f"FLOWSCOPE_{section}_{one.name}".upper()
        if flags.get(one.name) is not None:
            values[one.name] = _convert(one, flags[one.name], f"flag --{one.flag}")
        elif env.get(variable):
            values[one.name] = _convert(one, env[variable], f"environment variable {variable}")
        elif one.name in table:
            values[one.name] = _convert(one, table[one.name], f"key {one.name!r} in [{section}]")
    return cls(**values)


def _read_table(section: str, file: Path | None) -> dict[str, Any]:
    path = DEFAULT_FILE if file is None else file
    if file is None and not path.exists():
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read configuration file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"configuration file {path} is not valid TOML: {error}") from error
    table = document.get(section, {})
    if not isinstance(table, dict):
        raise Failure(f"[{section}] in {path} must be a table")
    return table


def _plain_type(hint: Any) -> type:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        return _plain_type(inner[0])
    return tuple if origin is tuple else hint


def _convert(one: Setting, value: object, where: str) -> Any:
    try:
        if one.type is bool:
            return _to_bool(value)
        if one.type is tuple:
            return _to_words(value)
        if one.type in (int, float) and isinstance(value, bool):
            raise ValueError(value)
        if one.type is int and isinstance(value, float):
            raise ValueError(value)
        return one.type(value)
    except (TypeError, ValueError):
        wanted = "list of text" if one.type is tuple else one.type.__name__
        raise Failure(f"{where}: expected {wanted}, got {value!r}") from None


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(value)


def _to_words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(word for part in value.split(",") if (word := part.strip()))
    if isinstance(value, (list, tuple)):
        return tuple(str(word) for word in value)
    raise TypeError(value)
