"""The words after `flowscope`: one module per command, loaded when its name is typed.

In:        nothing; a module is data about a command plus, at most, light imports.
Out:       COMMAND, a cli.command.Command, in a module named like the command (`-` becomes `_`).
Elsewhere: the work itself, named by `run="module:function"` so that it is imported only when the command runs.

To add a command, add a file:

    from cli.command import Command, Example, Flag

    COMMAND = Command(
        name="hello",
        summary="Say hello",
        flags=(Flag(name="loud", kind=BOOL, help="in capitals"),),
        examples=(Example("Greet loudly", "flowscope hello --loud"),),
        run="hello.main:run",           # def run(call: cli.command.Call) -> int | None
    )

A long-running service gets its flags from its settings class:

    from cli.services import service_command

    COMMAND = service_command("observer", summary="...", config="observer.config:ObserverConfig",
                              serve="observer.main:serve")
"""
