"""The client without asyncio: for scripts and notebooks, also those whose own event loop is running.

In:        the same questions as client.py.
Out:       the same answers, as plain values and iterators.
Elsewhere: client.py does the work, on an event loop in a thread that each SyncClient owns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from flowscope.client import Client, FlowStream
from proto.flow import flow_pb2
from proto.observer import observer_pb2

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")


def connect(server: str = "localhost:4245", **options: Any) -> SyncClient:
    """A client of `server`; options as those of Client. The connection is made with the first question."""
    return SyncClient(server, **options)


class SyncClient:
    """One server. Use it with `with`, or call close()."""

    def __init__(self, server: str = "localhost:4245", **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flowscope", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_made(server, options))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up and end the thread."""
        if self._thread.is_alive():
            self._run(self._client.close())
            self._end()

    def flows(self, **question: Any) -> SyncFlowStream:
        """Flows, oldest first; see query.request_of for the words."""
        return SyncFlowStream(self, self._client.flows(**question))

    def status(self) -> observer_pb2.ServerStatusResponse:
        """How many flows the server has and has seen."""
        return self._run(self._client.status())

    def nodes(self) -> list[observer_pb2.Node]:
        """The nodes behind a relay."""
        return self._run(self._client.nodes())

    def namespaces(self) -> list[str]:
        """Namespaces seen in the last hour."""
        return self._run(self._client.namespaces())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncFlowStream:
    """As FlowStream, for `for`."""

    def __init__(self, client: SyncClient, stream: FlowStream) -> None:
        self._client = client
        self.stream = stream
        """Counters of the stream: lost, nodes, reconnects."""

    def __iter__(self) -> Iterator[flow_pb2.Flow]:
        return self._walk(self.stream.__aiter__())

    def batches(self) -> Iterator[pa.Table]:
        """Arrow tables as they come."""
        return self._walk(self.stream.batches())

    def to_arrow(self) -> pa.Table:
        """All flows as one table."""
        return self._client._run(self.stream.to_arrow())

    def to_pandas(self) -> pd.DataFrame:
        """All flows as a frame."""
        return self._client._run(self.stream.to_pandas())

    def _walk(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> tuple[bool, Any]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        while True:
            more, item = self._client._run(step())
            if not more:
                return
            yield item


async def _made(server: str, options: dict[str, Any]) -> Client:
    return Client(server, **options)
