"""`flowscope completion bash|zsh|fish|powershell`."""

from __future__ import annotations

from cli.command import Command, Example

_HOW = {
    "bash": "source <(flowscope completion bash)",
    "zsh": "source <(flowscope completion zsh)",
    "fish": "flowscope completion fish | source",
    "powershell": "flowscope completion powershell | Out-String | Invoke-Expression",
}

COMMAND = Command(
    name="completion",
    summary="Print the script that teaches a shell to complete commands, flags and their values",
    checks_server_flags=False,
    children=tuple(
        Command(
            name=shell,
            summary=f"Print the script for {shell}",
            examples=(Example("In the shell that runs", line),),
            run="cli.completion:run_script",
            checks_server_flags=False,
        )
        for shell, line in _HOW.items()
    ),
)
