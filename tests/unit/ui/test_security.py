"""Who may ask the web server, and what the page may do."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rpc.target import Target
from ui.main import is_private
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


TOKEN = "s3cret-token"


@pytest.fixture
def guarded() -> TestClient:
    app = FastAPI()

    @app.get("/")
    async def index() -> str:
        return "page"

    @app.get("/api/flows")
    async def flows() -> str:
        return "flows"

    guard = Guard(app, [], TOKEN, "/flowscope")
    return TestClient(guard, base_url="http://localhost:12000", follow_redirects=False)


def test_without_the_token_there_is_only_a_login(guarded: TestClient) -> None:
    page = guarded.get("/")
    assert page.status_code == 401
    assert 'name="token"' in page.text
    assert guarded.get("/api/flows").status_code == 401
    assert guarded.get("/?token=wrong").status_code == 401
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 401


def test_the_printed_address_logs_in_and_hides_the_token(guarded: TestClient) -> None:
    answer = guarded.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_the_form_and_the_header_log_in(guarded: TestClient) -> None:
    answer = guarded.post("/login", content=f"token={TOKEN}")
    assert answer.status_code == 303
    value = answer.headers["set-cookie"].partition(";")[0]
    assert guarded.get("/api/flows", headers={"cookie": value}).text == '"flows"'
    assert guarded.get("/api/flows", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert guarded.get("/api/flows", headers={"cookie": "flowscope-token=other"}).status_code == 401


def test_the_page_lives_below_a_base_path_whether_or_not_the_proxy_cuts_it(guarded: TestClient) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/flowscope/", headers=bearer).text == '"page"'
    assert guarded.get("/", headers=bearer).text == '"page"'
    assert guarded.get("/flowscope", headers=bearer).headers["location"] == "/flowscope/"


def test_another_origin_may_neither_read_nor_post(guarded: TestClient) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "origin": "http://evil.example"}
    assert guarded.get("/api/flows", headers=headers).status_code == 403


@pytest.mark.parametrize("listen", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:///run/ui.sock"])
def test_no_token_is_asked_for_where_only_this_machine_can_come_by(listen: str) -> None:
    assert is_private(Target.parse(listen))


@pytest.mark.parametrize("listen", ["0.0.0.0:1", ":1", "flows.example:1"])
def test_a_token_is_asked_for_wherever_others_may_come_by(listen: str) -> None:
    assert not is_private(Target.parse(listen))
