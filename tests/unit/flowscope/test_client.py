"""What a client refuses before it dials, and what it takes from the environment."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from flowscope import Client, FlowscopeError, SyncClient, Tls, connect
from flowscope.client import columns_pay, default_server, frame_of
from flowscope.query import request_of


@pytest.mark.parametrize(
    ("server", "options", "said"),
    [
        ("localhost:4245", {"username": "me", "password": "secret"}, "a password or token needs TLS"),
        ("localhost:4245", {"token": "secret"}, "a password or token needs TLS"),
        ("tls://localhost:4245", {"token": "x", "username": "y"}, "username and token cannot be combined"),
        ("localhost", {}, "address 'localhost' has no port"),
        ("localhost:4245", {"tls": Tls(ca_files=("/nowhere.pem",))}, "/nowhere.pem: no such file"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(server: str, options: dict[str, Any], said: str) -> None:
    for make in (Client, SyncClient, connect):
        with pytest.raises(FlowscopeError, match=said) as error:
            make(server, **options)
        assert error.value.code == "InvalidArgument"


def test_secrets_travel_over_tls() -> None:
    assert Client("tls://relay:443", username="me", password="secret").channel.tls is not None
    assert Client("relay:443", tls=True, token="secret").channel.tls is not None


def test_the_server_is_that_of_the_command_line_unless_named() -> None:
    assert default_server({}) == "localhost:4245"
    assert default_server({"HUBBLE_SERVER": "a:1"}) == "a:1"
    assert default_server({"HUBBLE_SERVER": "a:1", "FLOWSCOPE_SERVER": "b:2"}) == "b:2"


def test_columns_are_asked_for_where_they_pay() -> None:
    assert columns_pay(request_of())
    assert columns_pay(request_of(last=1_000_000, verdict="DROPPED"))
    assert not columns_pay(request_of(last=20))
    assert not columns_pay(request_of(follow=True))
    assert not columns_pay(request_of(field_mask=["source"]))


def test_numbers_of_a_frame_stay_whole_numbers_where_some_are_missing() -> None:
    table = pa.table({"port": pa.array([53, None], pa.uint16()), "is_reply": pa.array([None, True])})
    frame = frame_of(table)
    assert str(frame["port"].dtype) == "UInt16"
    assert frame["port"].sum() == 53
    assert frame["is_reply"].isna().tolist() == [True, False]


def test_a_closed_client_says_so() -> None:
    client = connect("unix:///nowhere.sock")
    client.close()
    client.close()
    with pytest.raises(FlowscopeError, match="the client is closed") as error:
        client.status()
    assert error.value.code == "Canceled"
