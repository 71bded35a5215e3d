"""The entry points of `observe` and what stands below it.

In:        a Call.
Out:       what was asked for, printed; CommandError for what is wrong.
Elsewhere: see cli/observe/__init__.py.
"""

from __future__ import annotations

import time

from cli import log
from cli.command import Call
from cli.errors import CommandError
from cli.filters import filters_of
from cli.observe import request as requests
from cli.output import write
from cli.settings import Settings, load_settings
from model.text.flows import Look, Output
from model.text.tojson import to_json
from proto.observer import observer_pb2


def flows(call: Call) -> None:
    """`observe` and `observe flows`."""
    settings = _prepare(call)
    if filters_of(call.values).negate_next:
        raise CommandError("trailing --not found in the arguments")
    look = requests.look_of(call, settings, flows=True)
    request = requests.flows_request(call, settings, look, time.time_ns())
    if call.on("print-raw-filters"):
        write(requests.filters_yaml(request))
        return
    if call.on("explain-filter"):
        from model.filters import explain

        write(explain(request.whitelist, request.blacklist) + "\n")
        return
    path = call.text("input-file")
    if path and settings.on("port-forward"):
        raise CommandError("cannot use --input-file and --auto-port-forward together")
    if requests.needs_rows(call):
        _into_sink(call, settings, look, request)
    elif path:
        from cli.observe.files import observe_file

        observe_file(path, request, look)
    else:
        from cli.observe.stream import observe_flows

        log.debug("Sending GetFlows request", request=to_json(request))
        observe_flows(request, look, settings, reconnect=call.on("reconnect"))


def _into_sink(call: Call, settings: Settings, look: Look, request: observer_pb2.GetFlowsRequest) -> None:
    """Flows as columns, or counted."""
    from cli.observe.sinks import ColumnFile, GroupCounts, Sink
    from cli.observe.sources import from_file, from_server

    keys = call.items("group-by")
    every_s = call.number("every") / 1e9 if call.on("follow") else 0
    sink: Sink
    if keys:
        if call.text("output") in requests.COLUMN_FILES:
            raise CommandError(f"cannot set both --group-by and --output {call.text('output')}")
        sink = GroupCounts(keys, call.number("top"), as_json=look.output is Output.JSON, times=look.times)
    else:
        sink = ColumnFile(call.text("output"))
    path = call.text("input-file")
    if path:
        from_file(path, request, look, sink)
        return
    from_server(request, look, settings, sink, every_s=max(every_s, 0), reconnect=call.on("reconnect"))


def agent_events(call: Call) -> None:
    """`observe agent-events`."""
    from cli.observe.stream import observe_agent_events

    settings = _prepare(call)
    look = requests.look_of(call, settings, flows=False)
    request = requests.events_request(call, time.time_ns(), observer_pb2.GetAgentEventsRequest())
    log.debug("Sending GetAgentEvents request", request=to_json(request))
    observe_agent_events(request, look, settings)


def debug_events(call: Call) -> None:
    """`observe debug-events`."""
    from cli.observe.stream import observe_debug_events

    settings = _prepare(call)
    look = requests.look_of(call, settings, flows=False)
    request = requests.events_request(call, time.time_ns(), observer_pb2.GetDebugEventsRequest())
    log.debug("Sending GetDebugEvents request", request=to_json(request))
    observe_debug_events(request, look, settings)


def _prepare(call: Call) -> Settings:
    settings = load_settings(call)
    log.show_debug(settings.on("debug"))
    return settings
