"""Masks keep what was asked for, make the parents of deep paths, and refuse what does not exist."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.mask import FieldMask, InvalidMask
from proto.flow import flow_pb2
from tests.support.plain_encoding import PATHS
from tests.support.rows import flows


def masked(paths: list[str], **fields: Any) -> flow_pb2.Flow:
    mask = FieldMask.parse(paths)
    assert mask is not None
    return mask.apply(flow_pb2.Flow(**fields))


def test_no_paths_are_no_mask() -> None:
    assert FieldMask.parse([]) is None


WRONG = ("", "nothing", "ip", "source.", ".source", "source..identity", "source.nothing", "verdict.x", "time.seconds.x")
WRONG_LISTS = ("source.labels.x", "source.workloads.name", "node_labels.x", "egress_allowed_by.name")


@pytest.mark.parametrize("path", WRONG + WRONG_LISTS)
def test_a_path_that_names_nothing_is_refused(path: str) -> None:
    with pytest.raises(InvalidMask, match="invalid fieldmask") as refusal:
        FieldMask.parse(["time", path])
    assert str(refusal.value) == "invalid fieldmask"
    assert refusal.value.path == path


def test_a_leaf_is_copied_and_everything_else_is_gone() -> None:
    fields: dict[str, Any] = {"verdict": 2, "Summary": "x", "source": {"identity": 5, "labels": ["a", "b"]}}
    assert masked(["source", "Summary"], **fields) == flow_pb2.Flow(Summary="x", source=fields["source"])
    assert masked(["l7", "is_reply"], **fields) == flow_pb2.Flow()


def test_a_deep_path_makes_its_parents() -> None:
    flow = masked(["source.identity", "time.seconds"], verdict=1)
    assert flow.HasField("source")
    assert flow.HasField("time")
    assert flow == flow_pb2.Flow(source={}, time={})
    on_udp = masked(["l4.TCP.flags"], l4={"UDP": {"source_port": 5}})
    assert on_udp == flow_pb2.Flow(l4={"TCP": {}})


def test_of_two_protocols_the_one_that_the_flow_has_stays() -> None:
    for paths in (["l4.TCP.flags", "l4.UDP.source_port"], ["l4.SCTP.source_port", "l4.UDP"]):
        assert masked(paths, l4={"UDP": {"source_port": 5}}) == flow_pb2.Flow(l4={"UDP": {"source_port": 5}})


def test_paths_below_another_path_add_nothing() -> None:
    fields: dict[str, Any] = {"source": {"identity": 5, "pod_name": "p"}}
    assert masked(["source.identity", "source"], **fields) == flow_pb2.Flow(**fields)


@settings(max_examples=100)
@given(flows(), st.lists(st.sampled_from(PATHS), min_size=1, max_size=5))
def test_what_is_cut_completes_the_made_up_parents(flow: flow_pb2.Flow, paths: list[str]) -> None:
    mask = FieldMask.parse(paths)
    assert mask is not None
    together = flow_pb2.Flow.FromString(mask.skeleton + mask.cut(flow).SerializeToString())
    assert together == mask.apply(flow)
    assert mask.apply(mask.apply(flow)) == mask.apply(flow)
