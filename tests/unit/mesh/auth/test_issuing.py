"""Nodes ask, the controller signs: only for pods that are there, and again before the time is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mesh.auth.certificates import Authority, Certificate
from mesh.auth.documents import CertificateSigningRequest
from mesh.auth.issuing import issue
from mesh.auth.keyring import Keyring
from mesh.resources.base import Key, Resource, changed
from tests.support.cluster import node, pod, settled

START = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
NODE = "kind-worker0"


class World:
    """A cluster with one pod (identity 256) on one node, its keyring, an authority and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now_s = START
        placed = changed(pod("a"), spec=changed(pod("a").spec, node_name=NODE))
        self.resources = {one.key: one for one in settled([node(0), placed])}
        self.authority = Authority.create(datetime.fromtimestamp(START, UTC))
        self.folder = folder
        self.keyring = self.new_keyring()

    def new_keyring(self, name: str = NODE) -> Keyring:
        made = Keyring(self.folder / name, name, 3600, lambda: self.now_s)
        made.restore()
        return made

    def step(self, identities: set[int], keyring: Keyring | None = None) -> list[Key]:
        """The node looks and asks, the controller answers; what was written."""
        keyring = keyring or self.keyring
        keyring.take(self.resources.values())
        put, delete = keyring.ask(identities, self.resources.values())
        self.apply(put, delete)
        now = datetime.fromtimestamp(self.now_s, UTC)
        update = issue(list(self.resources.values()), self.authority, "default", now)
        self.apply(update.put, update.delete)
        keyring.take(self.resources.values())
        return [*(one.key for one in (*put, *update.put)), *delete, *update.delete]

    def apply(self, put: object, delete: object) -> None:
        assert isinstance(put, list | tuple)
        assert isinstance(delete, list | tuple)
        for one in put:
            assert isinstance(one, Resource)
            old = self.resources.get(one.key)
            if isinstance(old, CertificateSigningRequest) and isinstance(one, CertificateSigningRequest):
                one = changed(one, status=one.status if one.status.certificate else old.status)
            self.resources[one.key] = one
        for key in delete:
            del self.resources[key]

    def requests(self) -> list[str]:
        return [one.name for one in self.resources.values() if isinstance(one, CertificateSigningRequest)]


def test_a_node_gets_a_certificate_for_its_pod_and_asks_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.step({256})
    found = world.keyring.credential(256)
    assert found is not None
    assert found.certificate.identity == 256
    assert found.certificate.ends_s == START + 3600
    assert found.trust == world.authority.trust
    assert found.file.stat().st_mode & 0o077 == 0
    assert found.file.parent.stat().st_mode & 0o077 == 0
    assert found.client_context().cert_store_stats()["x509_ca"] == 1
    assert world.step({256}) == [], "everything is as it is to be"


def test_nobody_is_certified_for_pods_that_it_does_not_have(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({300})
    assert world.keyring.credential(300) is None
    assert world.requests() == []
    other = world.new_keyring("kind-worker9")
    world.step({256}, other)
    assert other.credential(256) is None
    assert world.requests() == []


def test_a_request_in_another_node_s_name_is_no_request(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    key = Key("CertificateSigningRequest", "", f"{NODE}.256")
    good = world.resources[key]
    assert isinstance(good, CertificateSigningRequest)
    world.resources[key] = changed(good, spec=changed(good.spec, username="system:node:other"))
    world.resources[Key(key.kind, "", "kind-worker0.x")] = changed(
        good, metadata=changed(good.metadata, name="kind-worker0.x")
    )
    update = issue(list(world.resources.values()), world.authority, "default", datetime.fromtimestamp(START, UTC))
    assert {one.name for one in update.delete} == {"kind-worker0.256", "kind-worker0.x"}


def test_what_is_no_request_is_refused_and_says_so_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    key = Key("CertificateSigningRequest", "", f"{NODE}.256")
    good = world.resources[key]
    assert isinstance(good, CertificateSigningRequest)
    world.resources[key] = changed(good, spec=changed(good.spec, request="bm9uc2Vuc2U="))
    now = datetime.fromtimestamp(START, UTC)
    (refused,) = issue(list(world.resources.values()), world.authority, "default", now).put
    assert isinstance(refused, CertificateSigningRequest)
    assert [one.type for one in refused.status.conditions] == ["Failed"]
    world.resources[key] = refused
    assert not issue(list(world.resources.values()), world.authority, "default", now)


def test_a_certificate_is_renewed_half_way_with_another_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    first = world.keyring.credential(256)
    assert first is not None
    world.now_s += 1700
    assert world.step({256}) == []
    world.now_s += 200
    world.step({256})
    second = world.keyring.credential(256)
    assert second is not None
    assert second.certificate.ends_s == START + 1900 + 3600
    assert second.certificate.public_key != first.certificate.public_key


def test_without_an_answer_the_old_certificate_holds_to_its_end_and_no_longer(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    world.now_s += 3599
    world.keyring.ask({256}, world.resources.values())
    assert world.keyring.credential(256) is not None
    assert world.keyring.missing() == []
    world.now_s += 20
    assert world.keyring.credential(256) is None
    assert world.keyring.missing() == [256]


def test_a_restarted_agent_has_its_certificates_and_asks_for_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    again = world.new_keyring()
    assert again.credential(256) is None, "not before it knows whom to believe"
    assert world.step({256}, again) == []
    assert again.credential(256) is not None


def test_one_that_was_killed_while_it_asked_asks_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    put, _ = world.keyring.ask({256}, world.resources.values())
    world.apply(put, [])
    again = world.new_keyring()
    world.step({256}, again)
    found = again.credential(256)
    assert found is not None
    assert found.certificate.fits(found.file.read_text())


def damage(text: str) -> str:
    return text[: len(text) // 2]


def another_key(text: str) -> str:
    return Authority.create(datetime.fromtimestamp(START, UTC)).pem + text


def test_files_that_are_damaged_are_made_again(tmp_path: Path) -> None:
    ways: list[Callable[[str], str]] = [damage, another_key, lambda text: ""]
    for number, spoil in enumerate(ways):
        world = World(tmp_path / str(number))
        world.step({256})
        found = world.keyring.credential(256)
        assert found is not None
        found.file.write_text(spoil(found.file.read_text()))
        again = world.new_keyring()
        world.step({256}, again)
        assert again.credential(256) is not None
        assert Certificate.parse(found.file.read_text()).fits(found.file.read_text())


def test_another_authority_means_other_certificates(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    world.authority = Authority.create(datetime.fromtimestamp(START, UTC))
    for _ in range(3):
        world.step({256})
    found = world.keyring.credential(256)
    assert found is not None
    assert found.trust == world.authority.trust
    assert world.step({256}) == []


def test_a_pod_that_is_gone_takes_its_certificate_along(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.step({256})
    found = world.keyring.credential(256)
    assert found is not None
    world.step(set())
    assert world.keyring.credential(256) is None
    assert not found.file.exists()
    assert world.requests() == []
