"""Commands that run one of Flowscope's services in the foreground.

In:        the settings class of a service (its fields are the flags) and its `serve`.
Out:       a Command; commands/observer.py and its sisters are one call each.
Elsewhere: service.settings merges flags, environment and file; service.run owns signals and the exit code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.command import Call, Command, Example, Flag, resolve
from cli.flags import BOOL, FLOAT, INT, LIST, TEXT

if TYPE_CHECKING:
    from service.settings import Setting


def service_command(
    name: str,
    *,
    summary: str,
    config: str,
    serve: str,
    description: str = "",
    examples: tuple[Example, ...] = (),
    hidden: bool = False,
) -> Command:
    """A command that runs a service.

    config  `module:Class`, a frozen dataclass of `service.settings.setting` fields.
    serve   `module:function`, `async def serve(config, stop, reload)`.
    """

    def flags() -> tuple[Flag, ...]:
        return (*(_flag(one, name) for one in _settings(config)), _CONFIG_FLAG)

    def run(call: Call) -> int:
        from service.run import run as run_service
        from service.settings import load

        file = Path(call.text("config")) if call.given("config") else None
        given = {one.name: call.values.get(one.flag) for one in _settings(config)}
        settings: Any = load(resolve(config), name, given, file=file)  # type: ignore[arg-type]
        return run_service(resolve(serve), settings)  # type: ignore[arg-type]

    return Command(
        name=name,
        summary=summary,
        description=description,
        flags=flags,
        examples=examples,
        hidden=hidden,
        run=run,
        checks_server_flags=False,
    )


_CONFIG_FLAG = Flag(
    name="config", value_name="file", help="configuration file (TOML), /etc/flowscope/flowscope.toml by default",
    completes="file",
)  # fmt: skip


def _settings(config: str) -> list[Setting]:
    from service.settings import settings_of

    return settings_of(resolve(config))  # type: ignore[arg-type]


def _flag(one: Setting, section: str) -> Flag:
    kind = {bool: BOOL, int: INT, float: FLOAT, tuple: LIST}.get(one.type, TEXT)
    return Flag(
        name=one.flag,
        kind=kind,
        default=one.default if one.default is not None else kind.zero,
        help=one.help,
        group="Settings (also FLOWSCOPE_"
        + section.upper()
        + "_<NAME> in the environment, ["
        + section
        + "] in the file)",
    )
