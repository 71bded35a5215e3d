"""Settings of the command line: flag, environment, file, default; the first that speaks wins.

In:        a Call, FLOWSCOPE_* and HUBBLE_* variables (ours first), a YAML file.
Out:       Settings, typed values by flag name.
Elsewhere: commands/config.py shows and writes the file; services have settings of their own (service.settings).

Only flags marked `bound` take part. As in Hubble, values in the environment or the file that make no sense become
zero values, and an unreadable file counts as empty: a broken file must not keep anyone from looking at flows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.command import Call, Flag
from cli.errors import CommandError
from cli.flags import LIST, REPEATED, TEXT, UINT16
from cli.globals import GLOBAL_FLAGS

PREFIXES: Final = ("FLOWSCOPE_", "HUBBLE_")


@dataclass(frozen=True, slots=True)
class Settings:
    """Merged values by flag name."""

    values: Mapping[str, object]

    def text(self, name: str) -> str:
        """A text setting."""
        return str(self.values[name])

    def on(self, name: str) -> bool:
        """A yes/no setting."""
        return bool(self.values[name])

    def number(self, name: str) -> int:
        """A number, or a duration in nanoseconds."""
        value = self.values[name]
        return value if isinstance(value, int) else 0

    def items(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.values[name]
        return value if isinstance(value, tuple) else ()


def load_settings(call: Call, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of one call."""
    env = os.environ if env is None else env
    flags = [flag for flag in call.flags.values() if flag.bound]
    path = config_path(call.values.get("config"), env)
    file = read_file(path, env)
    values = {flag.name: _merge(flag, call, env, file) for flag in flags}
    values["config"] = path
    return Settings(values)


def from_environment(name: str, env: Mapping[str, str]) -> str | None:
    """The environment's text for a flag; an empty variable counts as unset."""
    key = name.upper().replace("-", "_")
    return next((text for prefix in PREFIXES if (text := env.get(prefix + key))), None)


def _merge(flag: Flag, call: Call, env: Mapping[str, str], file: Mapping[str, object]) -> object:
    if flag.name in call.values:
        return call.values[flag.name]
    text = from_environment(flag.name, env)
    if text is not None:
        return convert(flag, text)
    if flag.name in file and file[flag.name] is not None:
        return convert(flag, file[flag.name])
    return flag.value


def convert(flag: Flag, value: object) -> object:
    """A value from environment or file as the flag's type; the zero value when it makes no sense."""
    if flag.kind in (LIST, REPEATED):
        # Lists in the environment are split at white space, not at commas.
        return tuple(map(str, value)) if isinstance(value, list) else tuple(scalar_text(value).split())
    if isinstance(value, (list, dict)):
        return flag.kind.zero
    if flag.kind == TEXT:
        return scalar_text(value)
    if flag.kind == UINT16 and isinstance(value, int):
        return value if 0 <= value < 1 << 16 else 0
    try:
        return flag.kind.parse(scalar_text(value), None)
    except ValueError:
        return flag.kind.zero


def scalar_text(value: object) -> str:
    """A YAML scalar as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def default_config_path(env: Mapping[str, str]) -> str:
    """Where the configuration lives when nothing else is said; empty when the user has no folder for it.

    Ours when it exists, else Hubble's, so that moving from one program to the other needs nothing.
    """
    folder = env.get("XDG_CONFIG_HOME") or (os.path.join(env["HOME"], ".config") if env.get("HOME") else "")
    if not folder:
        return ""
    ours = os.path.join(folder, "flowscope", "config.yaml")
    return ours if os.path.exists(ours) else os.path.join(folder, "hubble", "config.yaml")


def config_path(given: object, env: Mapping[str, str]) -> str:
    """The value of `--config`: flag, environment, default."""
    if isinstance(given, str):
        return given
    return from_environment("config", env) or default_config_path(env)


def read_file(path: str, env: Mapping[str, str]) -> dict[str, object]:
    """What the configuration file says; nothing when it cannot be read."""
    for candidate in [path] if path else _search_paths(env):
        if os.path.exists(candidate):
            try:
                return read_yaml(Path(candidate))
            except (OSError, ValueError):
                return {}
    return {}


def _search_paths(env: Mapping[str, str]) -> list[str]:
    paths = ["config.yaml"]
    if default := default_config_path(env):
        paths.append(default)
    if env.get("HOME"):
        paths.append(os.path.join(env["HOME"], ".hubble", "config.yaml"))
    return paths


def read_yaml(path: Path) -> dict[str, object]:
    """The mapping in a YAML file, keys in lower case.

    Raises: OSError; ValueError for text that is no YAML mapping.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("yaml: the document is not a mapping")
    return {str(key).lower(): value for key, value in document.items()}


def check_server_flags(settings: Settings) -> None:
    """Refuse contradictions among the flags of the connection.

    Raises: CommandError with Hubble's words.
    """
    if bool(settings.text("basic-auth-username")) != bool(settings.text("basic-auth-password")):
        raise CommandError("invalid flag(s): must specify both basic-auth-username and basic-auth-password")
    certificate, key = settings.text("tls-client-cert-file"), settings.text("tls-client-key-file")
    if bool(certificate) != bool(key):
        raise CommandError("invalid flag(s): certificate and private key are both required, but only one was provided")
    if certificate and not uses_tls(settings):
        raise CommandError("invalid flag(s): transport layer security required")


def uses_tls(settings: Settings) -> bool:
    """Whether the connection is to be encrypted."""
    return settings.on("tls") or settings.text("server").startswith("tls://")


GLOBAL_NAMES: Final = {flag.name: flag for flag in GLOBAL_FLAGS}
