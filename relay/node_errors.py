"""Errors of nodes, put together: a hundred nodes that fail for one reason make one message.

In:        (node, message) as nodes fail, and the time.
Out:       relay.NodeStatusEvent values with NODE_ERROR, when they are due.
Elsewhere: collect.py asks for what is due and sends it.

Source: api.md, section 6.3. Pure: the caller brings the clock.
"""

from __future__ import annotations

from proto.relay import relay_pb2


class NodeErrors:
    """Holds back at most one event, so that equal errors can join it."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._held: relay_pb2.NodeStatusEvent | None = None
        self._since_s = 0.0

    def add(self, node: str, message: str, now_s: float) -> relay_pb2.NodeStatusEvent | None:
        """A node failed; returns the event held so far when this one is different."""
        held = self._held
        if held is not None and held.message == message:
            # A node that fails again within the window says nothing new.
            if node not in held.node_names:
                held.node_names.append(node)
            return None
        self._held = relay_pb2.NodeStatusEvent(state_change=relay_pb2.NODE_ERROR, node_names=[node], message=message)
        self._since_s = now_s
        return held

    def due(self, now_s: float) -> relay_pb2.NodeStatusEvent | None:
        """The held event, once its window is over."""
        return self.flush() if self._held is not None and now_s - self._since_s >= self._window_s else None

    def flush(self) -> relay_pb2.NodeStatusEvent | None:
        """The held event, whatever its age."""
        held, self._held = self._held, None
        return held
