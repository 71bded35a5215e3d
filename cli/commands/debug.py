"""`flowscope debug decode`."""

from __future__ import annotations

from cli.command import Command, Example

COMMAND = Command(
    name="debug",
    summary="Look into what Flowscope does",
    children=(
        Command(
            name="decode",
            summary="Decode a folder of recorded events",
            description=(
                "Decode a folder of recorded events the way live events are decoded, and print one JSON object per "
                "event: the flow or other event that it became, or the class of its error.\n\n"
                "The folder holds index.jsonl (one entry per event), events.bin (the bytes of datapath events) and "
                "getters.json (what the node knew). If it also holds expected.jsonl, events get the times found there."
            ),
            arguments="DIR",
            examples=(Example("Which events could not be decoded", "flowscope debug decode DIR | grep error_class"),),
            run="cli.debug:decode",
            checks_server_flags=False,
        ),
    ),
)
