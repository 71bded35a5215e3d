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
    path = call.text("input-file")
    if path:
        if settings.on("port-forward"):
            raise CommandError("cannot use --input-file and --auto-port-forward together")
        from cli.observe.files import observe_file

        observe_file(path, request, look)
        return
    from cli.observe.stream import observe_flows

    log.debug("Sending GetFlows request", request=to_json(request))
    observe_flows(request, look, settings)


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
