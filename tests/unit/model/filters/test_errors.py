"""Every refusal of model/filters says what Hubble says."""

from __future__ import annotations

from typing import Any

import pytest

from model.filters import InvalidFilter, compile_filters
from proto.flow import flow_pb2
from tests.support.filter_strategies import filter_of

FlowFilter = flow_pb2.FlowFilter

NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def refusal(flow_filter: FlowFilter, **options: Any) -> tuple[str, str]:
    """Field and text of the error; the same whichever list the filter is in."""
    texts = set()
    for whitelist, blacklist in ([flow_filter], list[FlowFilter]()), ([], [flow_filter]):
        with pytest.raises(InvalidFilter) as refused:
            compile_filters(whitelist, blacklist, **options)
        texts.add((refused.value.field, str(refused.value)))
    assert len(texts) == 1
    return texts.pop()


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("protocol", "foo", 'invalid protocol filter: unknown protocol: "foo"'),
        ("source_pod", "", "invalid filter, name must not be empty"),
        ("source_service", "", "invalid source service filter: invalid filter, name must not be empty"),
        ("destination_service", "", "invalid destination service filter: invalid filter, name must not be empty"),
        ("source_cluster_name", "", "invalid filter, name must not be empty"),
        ("source_fqdn", "", "empty pattern"),
        ("source_fqdn", " .", "empty pattern"),
        ("source_fqdn", "a..", "multiple trailing dots in pattern"),
        ("destination_fqdn", "a b", "' ': invalid rune in pattern"),
        ("destination_fqdn", "ä", "'ä': invalid rune in pattern"),
        ("destination_fqdn", "a'", r"'\'': invalid rune in pattern"),
        ("node_name", "", "empty pattern"),
        ("node_name", "a/b/c", "too many slashes in pattern"),
        ("node_name", "a/b?", "'?': invalid rune in pattern"),
        ("http_status_code", "600", 'invalid http status code filter: invalid status code prefix: "600"'),
        ("http_status_code", "404+", 'invalid http status code filter: invalid status code prefix: "404+"'),
    ],
)
def test_a_name_that_cannot_be_is_refused(field: str, value: str, text: str) -> None:
    assert refusal(filter_of(**{field: [value]})) == (field, text)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("http_status_code", "http status code"),
        ("http_method", "http method"),
        ("http_path", "http path"),
        ("http_url", "http url"),
        ("http_header", "http headers"),
    ],
)
def test_http_fields_are_refused_beside_other_event_types(field: str, words: str) -> None:
    value: Any = flow_pb2.HTTPHeader(key="a") if field == "http_header" else "("
    other = filter_of(**{field: [value]}, event_type=[flow_pb2.EventTypeFilter(type=1)])
    text = f"filtering by {words} requires the event type filter to only match 'l7' events"
    assert refusal(other) == (field, text)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing closing ): `(`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("a{2000}", "invalid repeat count: `{2000}`"),
        ("\\8", "invalid escape sequence: `\\8`"),
    ],
)
def test_a_regular_expression_is_refused_in_gos_words(pattern: str, reason: str) -> None:
    prefixes = {
        "dns_query": "invalid DNS query filter: failed to compile regexp",
        "http_path": f"invalid http path filter: {pattern}",
        "http_url": f"invalid http url filter: {pattern}",
    }
    for field, prefix in prefixes.items():
        text = f"{prefix}: error parsing regexp: {reason}"
        assert refusal(filter_of(**{field: ["ok", pattern]})) == (field, text)


@pytest.mark.parametrize(
    ("port", "reason"),
    [("70000", "value out of range"), ("http", "invalid syntax"), ("80-90", "invalid syntax"), ("", "invalid syntax")],
)
def test_a_port_is_refused_in_gos_words(port: str, reason: str) -> None:
    for side in ("source", "destination"):
        text = f'invalid {side} port filter: invalid port "{port}": strconv.ParseUint: parsing "{port}": {reason}'
        assert refusal(filter_of(**{f"{side}_port": [port]})) == (f"{side}_port", text)


@pytest.mark.parametrize("text", ["8100-8000", "80-", "-80", "80-70000", "a-b", "1-2-3", "80 - 90"])
def test_a_malformed_port_range_is_refused_like_a_malformed_port(text: str) -> None:
    strict, extended = FlowFilter(source_port=[text]), refusal(FlowFilter(source_port=[text]), port_ranges=True)
    assert refusal(strict) == extended


@pytest.mark.parametrize("field", ["source_ip", "destination_ip", "source_ip_xlated"])
def test_an_address_is_refused_in_gos_words(field: str) -> None:
    address = 'invalid IP address "1.2.3" in filter: ParseAddr("1.2.3"): IPv4 address too short'
    assert refusal(filter_of(**{field: ["10.0.0.1", "1.2.3"]})) == (field, address)
    prefix = 'invalid IP prefix "::/129" in filter: netip.ParsePrefix("::/129"): prefix length out of range'
    assert refusal(filter_of(**{field: ["::/129"]})) == (field, prefix)


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        (
            "a>x",
            'unable to parse requirement: values[0]: Invalid value: "x": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("a=b_", f'unable to parse requirement: values[0][any.a]: Invalid value: "b_": {VALUE_RULE}'),
        (
            "a in (-,_)",
            f'unable to parse requirement: [values[0][any.a]: Invalid value: "-": {VALUE_RULE}, '
            f'values[1][any.a]: Invalid value: "_": {VALUE_RULE}]',
        ),
        ("k8s:a_", f'unable to parse requirement: <nil>: Invalid value: "k8s.a_": name part {NAME_RULE}'),
        ("=", f'unable to parse requirement: <nil>: Invalid value: "any.": name part {NAME_RULE}'),
        ("()", f'unable to parse requirement: <nil>: Invalid value: "any.": name part {NAME_RULE}'),
        ("any:k8s:b", f'unable to parse requirement: <nil>: Invalid value: "any.k8s:b": name part {NAME_RULE}'),
        (
            "a/b/c",
            f'unable to parse requirement: <nil>: Invalid value: "any.a/b/c": a qualified name {NAME_RULE} '
            "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        ),
    ],
)
def test_a_selector_is_refused_in_the_words_of_kubernetes(selector: str, text: str) -> None:
    for field, what in (("source_label", "source"), ("destination_label", "destination"), ("node_labels", "node")):
        assert refusal(filter_of(**{field: [selector]})) == (field, f"invalid {what} label filter: {text}")


def test_the_first_wrong_field_in_hubbles_order_is_named() -> None:
    assert refusal(FlowFilter(source_port=["x"], protocol=["x"], source_ip=["x"]))[0] == "protocol"


def test_a_cel_expression_is_refused_with_its_position() -> None:
    wrong = flow_pb2.FlowFilter.Experimental(cel_expression=["true", "_flow.verdict == 'a'"])
    text = (
        "error compiling CEL expression: ERROR: <input>:1:15: found no matching overload for '_==_' applied to "
        "'(int, string)'\n | _flow.verdict == 'a'\n | ..............^"
    )
    assert refusal(FlowFilter(experimental=wrong)) == ("experimental", text)
