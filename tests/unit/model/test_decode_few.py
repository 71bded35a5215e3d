"""model/decode/few.py: the same rows as the decoder makes, whatever was seen before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decode import Decoder
from model.decode.few import FEW, FewDecoder, usual
from model.events import LostSamples
from model.knowledge import Knowledge
from model.tables import Node, Tables
from tests.conftest import GOLDEN
from tests.support.batches import make_batch, read_golden

SHARED = GOLDEN.exists()
pytestmark = pytest.mark.skipif(not SHARED, reason="needs golden data beside the checkout")

EVENTS = (
    read_golden(GOLDEN / "bench", "bench-mix")[0][:300] + read_golden(GOLDEN / "events", "events")[0] if SHARED else []
)
KNOWLEDGE = Knowledge.from_json(json.loads((GOLDEN / "events" / "getters.json").read_text())) if SHARED else None


def decoders() -> tuple[FewDecoder, Decoder, Tables]:
    assert KNOWLEDGE is not None
    tables = Tables()
    decoder = Decoder(tables, KNOWLEDGE, tables.nodes.intern(Node("kind-worker")))
    return FewDecoder(decoder, tables), decoder, tables


FEW_DECODER, DECODER, _ = decoders()  # shared by all examples, so that rows are remembered


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """A golden event, perhaps with some bytes changed or its end cut off."""
    event = bytearray(draw(st.sampled_from(EVENTS)))
    for _ in range(draw(st.integers(0, 3))):
        if event:
            event[draw(st.integers(0, len(event) - 1))] = draw(st.integers(0, 255))
    return bytes(event[: draw(st.none() | st.integers(0, len(event)))])


@given(st.lists(events(), max_size=6), st.integers(0, 2**62))
@settings(max_examples=400)
def test_events_become_the_rows_that_the_decoder_makes(records: list[bytes], ts_ns: int) -> None:
    batch = make_batch(records, [ts_ns + number for number in range(len(records))])
    few, all_at_once = FEW_DECODER.decode(batch), DECODER.decode(batch)
    assert few.rows.tobytes() == all_at_once.rows.tobytes()
    assert few.errors == all_at_once.errors


def test_golden_events_are_the_same_when_they_are_seen_again() -> None:
    few, decoder, _ = decoders()
    for _ in range(2):
        for start in range(0, len(EVENTS), 7):
            batch = make_batch(EVENTS[start : start + 7], range(start, start + len(EVENTS[start : start + 7])))
            assert few.decode(batch).rows.tobytes() == decoder.decode(batch).rows.tobytes()


def test_most_packets_of_real_traffic_are_usual() -> None:
    bench, _ = read_golden(GOLDEN / "bench", "bench-mix")
    assert sum(usual(event) is not None for event in bench) > 0.9 * len(bench)


def test_lost_samples_and_large_batches_are_left_to_the_decoder() -> None:
    few, decoder, _ = decoders()
    lost = make_batch(EVENTS[:2], [1, 2], lost=[LostSamples(1, 0, 5, 3)])
    large = make_batch(EVENTS[: FEW + 1], [1] * (FEW + 1))
    for batch in (lost, large):
        assert few.decode(batch).rows.tobytes() == decoder.decode(batch).rows.tobytes()


def test_what_changes_is_noticed(golden: Path) -> None:
    few, decoder, tables = decoders()
    batch = make_batch(EVENTS[:5], [1] * 5)
    few.decode(batch)
    decoder.update(Knowledge.from_json({}))
    few.forget()
    assert few.decode(batch).rows.tobytes() == decoder.decode(batch).rows.tobytes()
    tables.compact([])
    decoder.node = tables.nodes.intern(Node("another"))
    assert few.decode(batch).rows.tobytes() == decoder.decode(batch).rows.tobytes()


def test_rows_can_be_written() -> None:
    few, _, _ = decoders()
    rows = few.decode(make_batch(EVENTS[:3], [1, 2, 3])).rows
    rows["seq"] = np.arange(len(rows))
