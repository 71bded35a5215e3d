"""The flags of `observe` that are no filters (those are in cli/filters.py).

In:        nothing.
Out:       tuples of Flag.
"""

from __future__ import annotations

from typing import Final

from cli.command import Flag
from cli.flags import BOOL, DURATION, LIST, REPEATED, TEXT, UINT64
from model.text.times import FORMATS

OUTPUTS: Final = ("compact", "dict", "json", "jsonpb", "table")
FLOW_OUTPUTS: Final = (*OUTPUTS, "arrow", "parquet", "csv")

_SELECT: Final = "Selectors"
_FORMAT: Final = "Output"

SELECTORS: Final = (
    Flag(name="all", kind=BOOL, help="everything that is stored", group=_SELECT),
    Flag(
        name="last",
        kind=UINT64,
        value_name="number",
        help="the newest ones (20 if nothing else is asked for)",
        group=_SELECT,
    ),
    Flag(name="first", kind=UINT64, value_name="number", help="the oldest ones", group=_SELECT),
    Flag(name="follow", short="f", kind=BOOL, help="go on with new ones as they happen", group=_SELECT),
    Flag(
        name="since",
        value_name="time",
        help="from this time on: 30s, 5m, 1h30m, 2d, 1w ago, or a date such as 2006-01-02, 2006-01-02T15:04Z, "
        "2006-01-02T15:04:05.678+02:00",
        group=_SELECT,
    ),
    Flag(name="until", value_name="time", help="up to this time, in the same forms", group=_SELECT),
)

FLOW_OUTPUT: Final = Flag(
    name="output",
    short="o",
    default="compact",
    value_name="form",
    help="compact, dict, table, json or jsonpb; or arrow, parquet, csv for programs",
    group=_FORMAT,
    choices=FLOW_OUTPUTS,
)

OUTPUT: Final = Flag(
    name="output",
    short="o",
    default="compact",
    value_name="form",
    help="compact, dict, table, json or jsonpb",
    group=_FORMAT,
    choices=OUTPUTS,
)

FORMATTING: Final = (
    Flag(name="print-node-name", kind=BOOL, help="show the node that saw it", group=_FORMAT),
    Flag(name="print-policy-names", kind=BOOL, help="show the policies behind a policy verdict", group=_FORMAT),
    Flag(
        name="time-format",
        default="StampMilli",
        value_name="name",
        help="how times are shown: " + ", ".join(FORMATS),
        group=_FORMAT,
        choices=tuple(FORMATS),
    ),
)

FLOW_FORMATTING: Final = (
    Flag(
        name="ip-translation",
        kind=BOOL,
        default=True,
        help="names of pods, services and DNS in place of addresses",
        group=_FORMAT,
    ),
    Flag(name="numeric", kind=BOOL, help="addresses only, as --ip-translation=false", group=_FORMAT),
    Flag(
        name="color",
        default="auto",
        value_name="when",
        help="colours in compact and dict output: auto, always or never",
        group=_FORMAT,
        choices=("auto", "always", "never"),
    ),
)

COUNTING: Final = (
    Flag(
        name="group-by",
        kind=LIST,
        value_name="fields",
        help="count flows per combination of these fields instead of showing them, e.g. "
        "source.workload,destination.workload,dport",
        group="Counting",
        choices=(
            "source.pod", "source.workload", "source.namespace", "source.identity", "source.ip", "sport",
            "destination.pod", "destination.workload", "destination.namespace", "destination.identity",
            "destination.ip", "dport", "protocol", "verdict", "drop_reason", "type", "direction", "node", "http.method",
            "http.code", "dns.query",
        ),
    ),
    Flag(name="top", kind=UINT64, default=20, value_name="number", help="groups to show; 0: all", group="Counting"),
    Flag(name="every", kind=DURATION, help="with --follow: show and start anew this often, e.g. 5s", group="Counting"),
)  # fmt: skip

RAW_FILTERS: Final = (
    Flag(
        name="allowlist",
        kind=REPEATED,
        value_name="json",
        help="filters as JSON (flow.FlowFilter), as --print-raw-filters prints them",
        group="Raw filters",
        bound=True,
    ),
    Flag(
        name="denylist",
        kind=REPEATED,
        value_name="json",
        help="filters as JSON that must not match",
        group="Raw filters",
        bound=True,
    ),
)

OTHER: Final = (
    Flag(
        name="input-file",
        kind=TEXT,
        value_name="file",
        help="read flows from a file of JSON lines instead of a server; - is standard input",
        group="Input",
        completes="file",
    ),
    Flag(name="field-mask", kind=LIST, value_name="paths", help="fields to ask for, with JSON output", group="Request"),
    Flag(
        name="use-default-field-masks",
        kind=BOOL,
        default=True,
        help="ask only for the fields that are shown",
        group="Request",
    ),
    Flag(name="explain-filter", kind=BOOL, help="say in words what the filters let through, and exit", group="Request"),
    Flag(
        name="reconnect",
        kind=BOOL,
        default=True,
        help="with --follow: connect again when the connection breaks, and say so",
        group="Request",
    ),
    Flag(name="print-raw-filters", kind=BOOL, help="print the filters as YAML and exit", group="Request"),
    Flag(
        name="silent-errors", short="s", kind=BOOL, help="do not show what a relay says about its nodes", group=_FORMAT
    ),
)
