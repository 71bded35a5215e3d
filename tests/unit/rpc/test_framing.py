"""Messages are found in a stream of bytes however it was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.observer import observer_pb2
from rpc.framing import PREFIX, PREFIX_SIZE, BrokenFraming, frame, frames, split

LIMIT = 1000


@given(bodies=st.lists(st.binary(max_size=60), max_size=20), cut=st.integers(0, 2000))
def test_a_cut_stream_gives_the_whole_messages_and_what_the_next_one_needs(bodies: list[bytes], cut: int) -> None:
    stream = b"".join(PREFIX.pack(0, len(body)) + body for body in bodies)
    piece = stream[:cut]
    ends, wanted = split(piece, LIMIT)
    starts = [0, *ends[:-1]]
    found = [piece[start + PREFIX_SIZE : end] for start, end in zip(starts, ends, strict=False)]
    assert found == bodies[: len(found)]
    rest = len(piece) - (ends[-1] if ends else 0)
    if wanted:
        assert rest < wanted == PREFIX_SIZE + len(bodies[len(found)])
    else:
        assert rest < PREFIX_SIZE


def test_a_compressed_message_is_refused() -> None:
    with pytest.raises(BrokenFraming, match="compressed"):
        split(PREFIX.pack(1, 3) + b"abc", LIMIT)


def test_an_unknown_prefix_is_refused() -> None:
    with pytest.raises(BrokenFraming, match="payload format 72"):
        split(b"HTTP/1.1 400", LIMIT)


def test_a_message_longer_than_the_limit_is_refused_before_it_has_arrived() -> None:
    with pytest.raises(BrokenFraming, match=r"larger than max \(1001 vs. 1000\)"):
        split(PREFIX.pack(0, LIMIT + 1), LIMIT)


def test_several_messages_are_framed_one_behind_the_other() -> None:
    message = observer_pb2.ServerStatusResponse(version="x")
    assert frames([message, message]) == frame(message) * 2
    assert split(frames([message, message]), LIMIT) == ([len(frame(message)), 2 * len(frame(message))], 0)
