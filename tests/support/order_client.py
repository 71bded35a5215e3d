"""A client that counts flows and checks their order by the times in the messages.

In:        an address, a request.
Out:       one JSON line: flows, those older than one before them (or not newer), seconds, CPU.
Elsewhere: tests/support/counting_client.py only counts, with less work per message.

Run it as a process of its own: python -m tests.support.order_client ADDRESS --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time

import numpy as np
from google.protobuf import json_format

from proto.observer import observer_pb2
from relay.wire import items_of
from rpc.client import Channel


async def watch(address: str, request: observer_pb2.GetFlowsRequest, seconds: float) -> dict[str, object]:
    """Read until the stream ends, or for `seconds` from the first message on."""
    flows = others = late = same = size = 0
    newest_ns = 0
    first_s = last_s = 0.0
    delays: list[float] = []
    async with Channel(address) as channel, channel.stream("/observer.Observer/GetFlows", request) as stream:
        async for batch in stream:
            last_s = time.monotonic()
            first_s = first_s or last_s
            items = items_of(batch.buffer, batch.ends, 0)
            tags = np.frombuffer(batch.buffer, np.uint8)[items["start"] + 5]
            times = items["ts_ns"][(tags != 0x12) & (tags != 0x1A)]  # node status, lost events
            flows += len(times)
            others += len(tags) - len(times)
            size += len(batch.buffer)
            if len(times):
                highest = np.maximum.accumulate(np.maximum(times, newest_ns))
                before = np.concatenate(([newest_ns], highest[:-1]))
                late += int((times < before).sum())
                same += int((times == before).sum())
                newest_ns = int(highest[-1])
                delays.append((time.time_ns() - int(times[-1])) / 1e6)
            if last_s - first_s >= seconds:
                break
        trailers = dict(stream.trailers)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "flows": flows,
        "others": others,
        "out_of_order": late,
        "not_newer": late + same,
        "bytes": size,
        "seconds": last_s - first_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "delay_ms": float(np.median(delays)) if delays else 0.0,
        "trailers": trailers,
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--request", default="{}", help="GetFlowsRequest as JSON")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    request = json_format.Parse(options.request, observer_pb2.GetFlowsRequest())
    print(json.dumps(asyncio.run(watch(options.address, request, options.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
