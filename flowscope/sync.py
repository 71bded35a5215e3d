"""The client without asyncio: for scripts and notebooks, also those whose own event loop is running.

In:        the same questions as client.py.
Out:       the same answers, as plain values and iterators.
Elsewhere: client.py does the work, on an event loop in a thread that each SyncClient owns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from flowscope.client import Client, FlowStream
from flowscope.error import FlowscopeError
from proto.flow import flow_pb2
from proto.observer import observer_pb2

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

T = TypeVar("T")


def connect(server: str = "", **options: Any) -> SyncClient:
    """A client of `server`; options as those of Client. The connection is made with the first question."""
    return SyncClient(server, **options)


class SyncClient:
    """One server. Use it with `with`, or call close(). Threads may share it."""

    def __init__(self, server: str = "", **options: Any) -> None:
        """Arguments and errors as those of Client."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flowscope", daemon=True)
        self._thread.start()
        try:
            self._client = self.run(_made(server, options))
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
        """Hang up and end the thread. Streams that are being read end."""
        if not self._loop.is_closed():
            self.run(self._client.close())
            self._end()

    def flows(self, **question: Any) -> SyncFlowStream:
        """Flows, oldest first. The words of questions: query.request_of, and flowscope.WORDS for filters.

        Raises: FlowscopeError InvalidArgument for a question that makes no sense.
        """
        return SyncFlowStream(self, self._client.flows(**question))

    def status(self) -> observer_pb2.ServerStatusResponse:
        """How many flows the server has and has seen. Raises: FlowscopeError."""
        return self.run(self._client.status())

    def nodes(self) -> list[observer_pb2.Node]:
        """The nodes behind a relay. Raises: FlowscopeError, Unimplemented on a node."""
        return self.run(self._client.nodes())

    def namespaces(self) -> list[str]:
        """Namespaces seen in the last hour. Raises: FlowscopeError."""
        return self.run(self._client.namespaces())

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on the client's loop and wait for it; an interrupt (Ctrl-C, Jupyter's stop) cancels it."""
        if self._loop.is_closed():
            work.close()
            raise FlowscopeError("Canceled", "the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(_finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncFlowStream:
    """As FlowStream, for `for`."""

    def __init__(self, client: SyncClient, stream: FlowStream) -> None:
        self._client = client
        self._stream = stream

    def __iter__(self) -> Iterator[flow_pb2.Flow]:
        """Flow by flow. Raises: FlowscopeError."""
        # A visit to the other thread costs more than a flow does, so it is made per list.
        for flows in self._walk(self._stream.flow_lists()):
            yield from flows

    def batches(self) -> Iterator[pa.Table]:
        """Arrow tables of the flows that arrive together. Raises: FlowscopeError."""
        return self._walk(self._stream.batches())

    def to_arrow(self) -> pa.Table:
        """All flows as one table. Raises: FlowscopeError; InvalidArgument when the question follows."""
        return self._client.run(self._stream.to_arrow())

    def to_pandas(self) -> pd.DataFrame:
        """All flows as a frame; text that repeats is categorical, numbers and truth values know <NA>."""
        return self._client.run(self._stream.to_pandas())

    @property
    def request(self) -> observer_pb2.GetFlowsRequest:
        """What the server is asked."""
        return self._stream.request

    @property
    def lost(self) -> int:
        """Events that were reported lost so far."""
        return self._stream.lost

    @property
    def nodes(self) -> Mapping[str, str]:
        """What a relay said of its nodes: state by name (`NODE_CONNECTED`, ...)."""
        return self._stream.nodes

    @property
    def reconnects(self) -> int:
        """How often a following stream lost its connection and went on."""
        return self._stream.reconnects

    def _walk(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while True:
                try:
                    item = self._client.run(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            # Whoever breaks out of a loop tells the server to stop.
            if not self._client.closed:
                self._client.run(items.aclose())


async def _made(server: str, options: dict[str, Any]) -> Client:
    return Client(server, **options)


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


async def _finish() -> None:
    """Let what still runs on this loop end, so that nothing is destroyed while it waits."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
