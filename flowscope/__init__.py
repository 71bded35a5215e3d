"""The Python client: flows for programs and notebooks.

In:        the address of an observer or relay, of Flowscope or of Hubble, and a question in the words of the CLI.
Out:       flows one by one, as Arrow tables or as pandas frames; status, nodes and namespaces.
Elsewhere: rpc/ is the connection; model/ has the columns; docs/python.md shows it in use.

    with flowscope.connect("localhost:4245") as client:
        frame = client.flows(last=1000, verdict="DROPPED").to_pandas()
"""

from flowscope.client import Client, FlowStream
from flowscope.error import FlowscopeError
from flowscope.query import WORDS, filters_of, request_of
from flowscope.sync import SyncClient, SyncFlowStream, connect
from proto.flow.flow_pb2 import Flow, FlowFilter
from rpc.tls import ClientTls as Tls

__all__ = [
    "WORDS",
    "Client",
    "Flow",
    "FlowFilter",
    "FlowStream",
    "FlowscopeError",
    "SyncClient",
    "SyncFlowStream",
    "Tls",
    "connect",
    "filters_of",
    "request_of",
]
