"""The small HTTP server and the two servers made of it, without sockets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.servers import http_echo, json_echo
from lab.servers.http import MAX_BODY, BadRequest, Request, parse_head, render


def request(path: str = "/", method: str = "GET", **headers: str) -> Request:
    return Request(method, path, {name.lower(): value for name, value in headers.items()}, "10.0.0.9")


def test_a_request_head_is_read() -> None:
    found, body = parse_head(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5", "::1")
    assert (found.method, found.path, found.headers["host"], body) == ("POST", "/a", "x", 5)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense", 400),
        (b"GET /", 400),
        (b"GET / SPDY/1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\n folded: x", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: %d" % (MAX_BODY + 1), 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 501),
    ],
)
def test_what_is_no_request_gets_its_status(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_head(head)
    assert refused.value.status == status


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_bad_one(head: bytes) -> None:
    try:
        found, _ = parse_head(head)
    except BadRequest:
        return
    assert found.method.isalpha()


def test_a_head_request_gets_the_length_but_no_body() -> None:
    answer = json_echo.answer(request())
    head = render(answer, head_only=True)
    assert b"Content-Length: 2057\r\n" in head
    assert head.endswith(b"\r\n\r\n")
    assert render(answer).endswith(answer.body)


def test_a_closing_connection_does_not_promise_to_stay() -> None:
    head = render(json_echo.answer(request()), close=True)
    assert b"Connection: close\r\n" in head
    assert b"keep-alive" not in head


def test_the_front_page_looks_like_the_original_s() -> None:
    answer = json_echo.answer(request())
    headers = dict(answer.headers)
    assert len(answer.body) == 2057
    assert headers["X-Powered-By"] == "Express"
    assert headers["ETag"].startswith('W/"809-')  # 0x809 = 2057


def test_the_json_server_serves_its_records() -> None:
    assert json.loads(json_echo.answer(request("/public/1")).body)["body"] == "public information"
    assert json_echo.answer(request("/public/2")).status == 404
    assert json_echo.answer(request("/nothing")).body == b"{}"
    assert json.loads(json_echo.answer(request("/client-ip")).body) == {"client-ip": "10.0.0.9"}
    assert json_echo.answer(request("/", "POST")).status == 404


def test_the_guarded_path_wants_its_token() -> None:
    path = "/auth-header-required/x"
    assert json_echo.answer(request(path)).status == 401
    assert json_echo.answer(request(path, authorization="Bearer 123456")).status == 404


def test_http_echo_says_its_text_and_who_it_is() -> None:
    answer = http_echo.handler("foo")(request("/any"))
    assert answer.body == b"foo\n"
    assert dict(answer.headers)["X-App-Name"] == "http-echo"
    assert dict(answer.headers)["X-App-Version"] == "0.2.3"


def test_http_echo_takes_flags_as_go_does() -> None:
    assert http_echo.options(["-text=foo", "--listen", ":80"]) == {"text": "foo", "listen": ":80"}
    with pytest.raises(ValueError, match="unknown argument '-txt'"):
        http_echo.options(["-txt=foo"])
    with pytest.raises(ValueError, match="-text needs a value"):
        http_echo.options(["-text"])
