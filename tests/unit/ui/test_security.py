"""Who may ask the web server, and what the page may do."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from ui.security import Guard, host_name


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()

    @app.get("/")
    async def index() -> str:
        return "page"

    return TestClient(Guard(app, ["flows.example"]), base_url="http://localhost:12000")


def test_the_page_is_answered_with_a_strict_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "flows.example.:80"])
def test_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 403
    assert "--hosts" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:12000", "[::1]:12000", "flows.example"])
def test_the_own_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


def test_the_port_is_cut_from_a_host_name() -> None:
    assert [host_name(one) for one in ("a:1", "a", "[::1]:1", "[::1]")] == ["a", "a", "[::1]", "[::1]"]
