"""Settings of the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from service.settings import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class UiConfig:
    """One frozen object; flags, environment and file meet in service.settings.load."""

    listen: str = setting("localhost:12000", "address of the web server: host:port or unix:///path")
    server: str = setting("localhost:4245", "the relay (or an observer): host:port or unix:///path")
    flows: int = setting(262_143, "flows kept in memory for the page: one less than a power of two")
    history: int = setting(10_000, "flows of the past asked from each node at the start")
    map_window_s: float = setting(60.0, "seconds of flows that the map is drawn from")
    hosts: tuple[str, ...] = setting(
        (), "names under which browsers may ask for the page, beside the address of --listen"
    )
    token: str = setting(
        "", "asked of browsers; default: a random one, printed at start, unless --listen is a socket or loopback"
    )
    base_path: str = setting("", "path below which a proxy shows the page, such as /flowscope")
    layout_file: str = setting("", "file that keeps where cards of the map stand; empty: kept in memory")
    clients: int = setting(100, "browsers served at once")
    drain_s: float = setting(5.0, "seconds given to open pages at shutdown")
    log_level: str = setting("info", "debug, info, warning or error")
    log_json: bool = setting(False, "log JSON lines")
