"""`flowscope observe [flows|agent-events|debug-events]`."""

from __future__ import annotations

from cli.command import Command, Example
from cli.filters import FILTER_FLAGS
from cli.observe.flags import COUNTING, FLOW_FORMATTING, FLOW_OUTPUT, FORMATTING, OTHER, OUTPUT, RAW_FILTERS, SELECTORS

_FLOW_FLAGS = (
    *(*SELECTORS, *FILTER_FLAGS, *RAW_FILTERS, *COUNTING),
    *(FLOW_OUTPUT, *FORMATTING, *FLOW_FORMATTING, *OTHER),
)

_DESCRIPTION = (
    "Show flows: packets and L7 messages with the names of both ends, and what was decided.\n\n"
    "Values of one filter flag are alternatives, different flags must all match. Flags without `from` or `to`, such as "
    "--pod or --port, describe one end of the flow, whichever it is. `--not` in front of a filter flag shows what does "
    "not match it; several `--not` together hide only what matches all of their flags."
)

_EXAMPLES = (
    Example("The last 20 flows", "flowscope observe"),
    Example(
        "Follow what is dropped, with the node that dropped it",
        "flowscope observe -f --verdict DROPPED --print-node-name",
    ),
    Example(
        "All of yesterday's DNS of one pod", "flowscope observe --since 2d --until 1d --pod shop/cart --protocol dns"
    ),
    Example(
        "HTTP errors, but not those of health checks", "flowscope observe --http-status 5+ --not --http-path ^/healthz"
    ),
    Example(
        "Who talks to whom, counted every 5 seconds",
        "flowscope observe -f --group-by source.workload,destination.workload,dport --top 10 --every 5s",
    ),
    Example("Save flows, look at them later", "flowscope observe --all -o jsonpb > flows.json"),
    Example("... as if they came from a server", "flowscope observe --input-file flows.json --to-port 443"),
)

COMMAND = Command(
    name="observe",
    summary="Show flows, agent events or debug events",
    description=_DESCRIPTION,
    flags=_FLOW_FLAGS,
    examples=_EXAMPLES,
    run="cli.observe.run:flows",
    children=(
        Command(
            name="flows",
            summary="Show flows (what `observe` alone does)",
            description=_DESCRIPTION,
            flags=_FLOW_FLAGS,
            examples=_EXAMPLES,
            run="cli.observe.run:flows",
        ),
        Command(
            name="agent-events",
            summary="Show what the agent of a node reports: policies, endpoints, addresses",
            flags=(*SELECTORS, OUTPUT, *FORMATTING, *OTHER),
            examples=(Example("Follow changes of policies and endpoints", "flowscope observe agent-events -f"),),
            run="cli.observe.run:agent_events",
        ),
        Command(
            name="debug-events",
            summary="Show debug messages of the datapath of a node",
            flags=(*SELECTORS, OUTPUT, *FORMATTING, *OTHER),
            examples=(Example("The last debug messages as JSON", "flowscope observe debug-events -o json"),),
            run="cli.observe.run:debug_events",
        ),
    ),
)
