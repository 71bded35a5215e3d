"""`flowscope ui`."""

from __future__ import annotations

from cli.services import service_command

COMMAND = service_command("ui", summary="Serve the web dashboard", config="ui.config:UiConfig", serve="ui.main:serve")
