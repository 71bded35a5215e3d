"""`flowscope config`: show and change the settings of the command line.

In:        a Call; the configuration file.
Out:       YAML on stdout, or a changed file.
Elsewhere: settings.py merges flags, environment, file and defaults.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from cli.command import Call, Flag
from cli.errors import CommandError
from cli.flags import BOOL, DURATION, LIST, UINT16
from cli.globals import GLOBAL_FLAGS
from cli.gotext import NS_PER, format_duration
from cli.output import write
from cli.settings import load_settings, read_yaml

KEYS: Final = {flag.name: flag for flag in sorted(GLOBAL_FLAGS, key=lambda flag: flag.name)}

_FOLDER_MODE: Final = 0o750
_SUFFIXES: Final = (".yaml", ".yml", ".json")


def view(call: Call) -> None:
    """All keys with their merged values."""
    settings = load_settings(call)
    write("".join(_entry(name, shown(flag, settings.values[name])) for name, flag in KEYS.items()))


def get(call: Call) -> None:
    """One key, or all. Raises: CommandError."""
    if len(call.words) > 1:
        words = " ".join(call.words)
        raise CommandError(f"invalid arguments: get requires exactly 0 or 1 argument: got '{words}'")
    if not call.words:
        view(call)
        return
    flag = _known(call.words[0])
    value = shown(flag, load_settings(call).values[flag.name])
    if isinstance(value, list):
        write("".join(f"- {scalar(item)}\n" for item in value) or "[]\n")
    else:
        write(scalar(value) + "\n")


def set_key(call: Call) -> None:
    """Write one key into the file; its default without a value. Raises: CommandError."""
    if len(call.words) not in (1, 2):
        words = " ".join(call.words)
        raise CommandError(f"invalid arguments: set requires exactly 1 or 2 argument(s): got '{words}'")
    _write_keys(call, {_known(call.words[0]).name: call.words[1] if len(call.words) == 2 else ""})


def reset(call: Call) -> None:
    """Write the default of one key, or of all, into the file. Raises: CommandError."""
    if len(call.words) > 1:
        words = " ".join(call.words)
        # The misspelling is Hubble's; scripts may match on it.
        raise CommandError(f"invalid arguments: resset requires exactly 0 or 1 argument: got '{words}'")
    names = [_known(call.words[0]).name] if call.words else list(KEYS)
    _write_keys(call, dict.fromkeys(names, ""))


def _known(name: str) -> Flag:
    if name not in KEYS:
        raise CommandError(f"unknown key: {name}")
    return KEYS[name]


def _write_keys(call: Call, texts: dict[str, str]) -> None:
    values = {name: _convert(KEYS[name], text) for name, text in texts.items()}
    name = load_settings(call).text("config")
    if not name:
        raise CommandError("config file undefined")
    path = Path(name)
    if path.suffix not in _SUFFIXES:
        raise CommandError(
            f"config type could not be determined for {name}"
            if not path.suffix
            else f'Unsupported Config Type "{path.suffix[1:]}"'
        )
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"configuration directory does not exist and cannot be created: mkdir {path.parent}: {_reason(error)}"
        ) from error
    try:
        known = read_yaml(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CommandError(f"While parsing config: {error}") from error
    document = dict(sorted({**known, **values}.items()))
    text = "".join(_entry(key, value) for key, value in document.items())
    if path.suffix == ".json":
        import json

        text = json.dumps(document, indent=2)
    _replace(path, text or "{}\n")


def _replace(path: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        # A link to the file, e.g. into a repository of dotfiles, stays a link.
        os.replace(temporary, path.resolve())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CommandError(f"open {path}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _convert(flag: Flag, text: str) -> object:
    """The value to write. Raises: CommandError."""
    if not text:
        return shown(flag, flag.value if flag.name != "config" else "")
    if flag.kind == LIST:
        text = text.removeprefix("[").removesuffix("]")
    elif flag.kind == DURATION and not any(unit in text for unit in NS_PER):
        # A bare number means nanoseconds.
        text += "ns"
    try:
        return shown(flag, flag.kind.parse(text, None))
    except ValueError as error:
        kind = "bool" if flag.kind == BOOL else flag.kind.type_name
        raise CommandError(f"cannot assign value={text} for key={flag.name}, expected type={kind}: {error}") from error


def shown(flag: Flag, value: object) -> object:
    """A value as it stands in the file: durations and the port as text."""
    if flag.kind == DURATION and isinstance(value, int):
        return format_duration(value)
    if flag.kind == UINT16:
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _entry(name: str, value: object) -> str:
    if isinstance(value, list):
        return f"{name}: []\n" if not value else f"{name}:\n" + "".join(f"    - {scalar(item)}\n" for item in value)
    if isinstance(value, dict):
        import yaml

        return str(yaml.safe_dump({name: value}, default_flow_style=False, indent=4))
    return f"{name}: {scalar(value)}\n"


def scalar(value: object) -> str:
    """A YAML scalar: plain where that reads back as the same text, in double quotes where it would become a number."""
    if not isinstance(value, str):
        return "true" if value is True else "false" if value is False else "null" if value is None else str(value)
    import io

    import yaml

    if not value:
        return '""'
    resolver: Any = yaml.SafeLoader("")
    if resolver.resolve(yaml.ScalarNode, value, (True, False)) != "tag:yaml.org,2002:str":
        return f'"{value}"'
    emitter: Any = yaml.emitter.Emitter(io.StringIO())
    analysis = emitter.analyze_scalar(value)
    if analysis.allow_block_plain:
        return value
    if analysis.allow_single_quoted and not analysis.multiline:
        return "'" + value.replace("'", "''") + "'"
    import json

    return json.dumps(value)
