"""A standard client, grpcio, that proves a stream whole: every flow once, in the order in which the node numbered them.

In:        the address of one observer, how many flows are to come.
Out:       one JSON line: flows, gaps (numbers that were skipped), repeats (flows out of their order), lost events as
           the server reported them, messages that are none of these, bytes (size), seconds.
Elsewhere: tests/support/order_client.py checks times, with a client of our own.

A flow's UUID holds its number (model/flow_id.py): those of one node count up by one. Messages are not parsed but
searched for their UUID; should another field look like one, the numbers would not add up.
Run it as a process of its own: python -m tests.support.grpcio_client ADDRESS --flows 200000
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np

from model.flow_id import SEQ_MASK, UUID_CHARS, parse_uuid_bytes
from proto.observer import observer_pb2

UUID_TAG = b"\x92\x02\x24"
"""Field 34 of flow.Flow, length-delimited, 36 bytes."""
CHECKED_AT_ONCE = 10_000


@dataclass
class Account:
    """What has come so far."""

    flows: int = 0
    gaps: int = 0
    repeats: int = 0
    lost: int = 0
    others: int = 0
    size: int = 0
    seconds: float = 0.0
    _newest: int | None = None

    def take(self, uuids: bytes) -> None:
        """The UUIDs of the next flows, one behind the other."""
        text = np.frombuffer(uuids, np.uint8).reshape(-1, UUID_CHARS)
        _, low, good = parse_uuid_bytes(text)
        assert good.all()
        numbers = (low & np.uint64(SEQ_MASK)).astype(np.int64)
        before = numbers[0] - 1 if self._newest is None else self._newest
        steps = np.diff(numbers, prepend=before)
        self.flows += len(numbers)
        self.gaps += int((steps[steps > 1] - 1).sum())
        self.repeats += int((steps < 1).sum())
        self._newest = int(numbers[-1])

    def other(self, body: bytes) -> None:
        """A message that is no flow."""
        response = observer_pb2.GetFlowsResponse.FromString(body)
        if response.HasField("lost_events"):
            self.lost += response.lost_events.num_events_lost
        else:
            self.others += 1


def check(messages: Iterable[bytes], wanted: int) -> Account:
    """Read until `wanted` flows have come or were reported lost, or up to the end of the stream."""
    account = Account()
    begun = time.monotonic()
    uuids: list[bytes] = []
    for body in _until_refused(messages):
        account.size += len(body)
        at = body.find(UUID_TAG) + len(UUID_TAG)
        if at < len(UUID_TAG):
            account.other(body)
        else:
            uuids.append(body[at : at + UUID_CHARS])
        if len(uuids) == CHECKED_AT_ONCE:
            account.take(b"".join(uuids))
            uuids.clear()
        if account.flows + len(uuids) + account.lost >= wanted:
            break
    if uuids:
        account.take(b"".join(uuids))
    account.seconds = time.monotonic() - begun
    return account


def _until_refused(messages: Iterable[bytes]) -> Iterator[bytes]:
    """What came before an error: it tells more than the error does."""
    try:
        yield from messages
    except grpc.RpcError as error:
        print(error.code(), error.details(), file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--flows", type=int, required=True)
    parser.add_argument("--timeout", type=float, default=600.0)
    options = parser.parse_args()
    request = observer_pb2.GetFlowsRequest(follow=True)
    # From the first flow on that the server has, and then what comes.
    request.since.FromNanoseconds(1)
    with grpc.insecure_channel(options.address) as channel:
        call: Any = channel.unary_stream(
            "/observer.Observer/GetFlows",
            request_serializer=observer_pb2.GetFlowsRequest.SerializeToString,
            response_deserializer=None,
        )(request, timeout=options.timeout)
        try:
            account = check(call, options.flows)
        finally:
            call.cancel()
    print(json.dumps({name: value for name, value in asdict(account).items() if not name.startswith("_")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
