"""Requests and looks follow the flags of `observe`."""

from __future__ import annotations

from typing import Any

import pytest

from cli.command import Call, UsageError
from cli.errors import CommandError
from cli.globals import command_tree
from cli.observe import request as requests
from cli.settings import check_server_flags, load_settings
from model.text.flows import Output
from proto.observer import observer_pb2

NOW = 1_715_679_000_000_000_000
EVERYTHING = (1 << 64) - 1


def call_of(*arguments: str, env: dict[str, str] | None = None) -> tuple[Call, Any]:
    call = command_tree().call(["observe", *arguments])
    return call, load_settings(call, env or {})


def request_of(*arguments: str) -> observer_pb2.GetFlowsRequest:
    call, settings = call_of(*arguments)
    return requests.flows_request(call, settings, requests.look_of(call, settings, flows=True), NOW)


@pytest.mark.parametrize(
    ("arguments", "number", "first"),
    [
        ((), 20, False),
        (("--last", "0"), 20, False),
        (("--last", "7"), 7, False),
        (("--first", "7"), 7, True),
        (("--all",), EVERYTHING, False),
        (("-f",), 0, False),
        (("-f", "--last", "3"), 3, False),
        (("--since", "1h"), 0, False),
        (("--since", "1h", "--all"), 0, False),
        (("--until", "1h", "--last", "3"), 3, False),
        (("--input-file", "x"), 0, False),
    ],
)
def test_how_many_flows_are_asked_for(arguments: tuple[str, ...], number: int, first: bool) -> None:
    request = request_of(*arguments)
    assert (request.number, request.first) == (number, first)


def test_until_has_no_place_in_a_stream_without_end() -> None:
    assert not request_of("-f", "--until", "not even looked at").HasField("until")


def test_masks_go_with_outputs() -> None:
    assert request_of().field_mask.paths[:2] == ["time", "verdict"]
    assert not request_of("-o", "json").field_mask.paths
    assert not request_of("--use-default-field-masks=false").field_mask.paths
    assert request_of("-o", "json", "--field-mask", "time,IP", "--field-mask", "l4").field_mask.paths == [
        "time",
        "IP",
        "l4",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "yaml", "--first", "1", "--last", "1"), "invalid output format: yaml"),
        (("-o", "tab", "-f"), "table output format is not compatible with follow mode"),
        (("-o", "dict", "--field-mask", "time"), "dict output format is not compatible with custom field mask"),
        (("--first", "1", "--all"), "cannot set both --first and --all"),
        (("--since", "x"), "failed to parse the since time: failed to convert x to time"),
        (("--until", "x"), "failed to parse the until time: failed to convert x to time"),
        (
            ("-o", "json", "--field-mask", "nonsense"),
            'failed to construct field mask: proto: invalid path "nonsense" for message "flow.Flow"',
        ),
    ],
)
def test_contradictions_are_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(CommandError) as error:
        request_of(*arguments)
    assert str(error.value) == message


def test_raw_filters_follow_those_of_flags_and_may_be_many_in_one_value() -> None:
    request = request_of("--allowlist", '{"uuid":["1"]}{"uuid":["2"]}', "--uuid", "0", "--denylist", "")
    assert [one.uuid[0] for one in request.whitelist] == ["0", "1", "2"]
    assert not request.blacklist


def test_broken_raw_filters_are_named() -> None:
    with pytest.raises(CommandError, match=r"^invalid --denylist flag: failed to decode '\{\"x\":1\}': unknown field"):
        request_of("--denylist", '{"x":1}')


def test_raw_filters_print_as_yaml_that_can_be_a_config_file() -> None:
    request = request_of("--http-url", "it's <&>", "--not", "--cel-expression", "emoji \U0001f600")
    assert requests.filters_yaml(request) == (
        "allowlist:\n    - '{\"http_url\":[\"it''s \\u003c\\u0026\\u003e\"]}'\n"
        'denylist:\n    - "{\\"experimental\\":{\\"cel_expression\\":[\\"emoji \\U0001F600\\"]}}"\n'
    )


def test_agent_events_never_ask_for_the_first_ones() -> None:
    call = command_tree().call(["observe", "agent-events", "--first", "3", "-f", "--last", "5"])
    request = requests.events_request(call, NOW, observer_pb2.GetAgentEventsRequest())
    assert (request.number, request.first, request.follow) == (5, False, True)
    with pytest.raises(UsageError, match="unknown flag: --verdict"):
        command_tree().call(["observe", "agent-events", "--verdict", "DROPPED"])


def test_legacy_json_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBLE_COMPAT", "x,LEGACY-json-output")
    call, settings = call_of("-o", "JSON")
    assert requests.look_of(call, settings, flows=True).output is Output.LEGACY_JSON
    call, settings = call_of("-o", "jsonpb")
    assert requests.look_of(call, settings, flows=True).output is Output.JSON


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--basic-auth-username", "u"), "must specify both basic-auth-username and basic-auth-password"),
        (("--tls-client-key-file", "k"), "certificate and private key are both required, but only one was provided"),
        (("--tls-client-key-file", "k", "--tls-client-cert-file", "c"), "transport layer security required"),
    ],
)
def test_contradictions_of_the_connection_are_refused(arguments: tuple[str, ...], message: str) -> None:
    _, settings = call_of(*arguments)
    with pytest.raises(CommandError) as error:
        check_server_flags(settings)
    assert str(error.value) == f"invalid flag(s): {message}"


def test_a_target_with_tls_needs_no_flag() -> None:
    _, settings = call_of("--server", "tls://a:1", "--tls-client-key-file", "k", "--tls-client-cert-file", "c")
    check_server_flags(settings)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "unexpected EOF"),
        ('{"uuid', "unexpected EOF"),
        ("nonsense", "invalid character 'n' looking for beginning of value"),
        ("{x", "invalid character 'x' looking for beginning of object key string"),
        ('{"uuid" 1}', "invalid character '1' after object key"),
        ('{"uuid":[] 1}', "invalid character '1' after object key:value pair"),
    ],
)
def test_syntax_errors_of_raw_filters_are_said_as_hubble_says_them(text: str, reason: str) -> None:
    with pytest.raises(CommandError) as error:
        request_of("--allowlist", text)
    assert str(error.value) == f"invalid --allowlist flag: failed to decode '{text}': {reason}"
