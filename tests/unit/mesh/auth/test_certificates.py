"""Certificates of identities: who is in them, who signed them, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mesh.auth.certificates import Authority, BadCertificate, Certificate, is_signed_by, new_key, new_request
from mesh.auth.spiffe import identity_of_server_name, identity_of_uri, server_name_of, uri_of

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_certificate_says_who_may_use_it_and_for_how_long() -> None:
    authority, key = Authority.create(NOW), new_key()
    request = new_request(key, 300)
    pem = authority.sign(request, 300, NOW, HOUR)
    found = Certificate.parse(pem)
    assert found.identity == 300
    assert (found.issued_s, found.ends_s) == (NOW.timestamp(), (NOW + HOUR).timestamp())
    assert found.fits(key)
    assert not found.fits(new_key())
    assert authority.has_signed(pem, request)
    assert not authority.has_signed(pem, new_request(new_key(), 300)), "it is about another key"
    assert not Authority.create(NOW).has_signed(pem, request)


def test_what_a_request_says_of_itself_does_not_count() -> None:
    authority = Authority.create(NOW)
    found = Certificate.parse(authority.sign(new_request(new_key(), 999), 300, NOW, HOUR))
    assert found.identity == 300


def test_an_authority_is_the_same_again_when_it_is_read() -> None:
    first = Authority.create(NOW)
    again = Authority(first.pem)
    assert again.trust == first.trust
    assert is_signed_by(first.sign(new_request(new_key(), 300), 300, NOW, HOUR), again.trust)
    assert "PRIVATE" not in first.trust


@pytest.mark.parametrize("text", ["", "certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_other_text_is_refused(text: str) -> None:
    authority = Authority.create(NOW)
    with pytest.raises(BadCertificate):
        Certificate.parse(text)
    with pytest.raises(BadCertificate):
        authority.sign(text, 300, NOW, HOUR)
    with pytest.raises(BadCertificate):
        Authority(text)
    assert not authority.has_signed(text, text)
    assert not is_signed_by(text, authority.trust)


def test_an_authority_is_nobody() -> None:
    with pytest.raises(BadCertificate):
        Certificate.parse(Authority.create(NOW).trust)


def test_names_of_identities_are_read_back_and_no_others() -> None:
    assert uri_of(300) == "spiffe://spiffe.cilium/identity/300"
    assert identity_of_uri(uri_of(300)) == 300
    assert identity_of_server_name(server_name_of(65535)) == 65535
    others = ("", "spiffe://other/identity/300", uri_of(300) + "/", uri_of(300) + "\n", uri_of(2), uri_of(70000))
    assert [identity_of_uri(one) for one in others] == [None] * len(others)
    assert [identity_of_server_name(one) for one in ("300", "300.spiffe.cilium.", "0300.spiffe.cilium")] == [None] * 3
