"""Settings come from flags, environment and file, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli.__main__ import main
from cli.config_file import scalar
from cli.globals import command_tree
from cli.settings import Settings, load_settings


def settings_of(*arguments: str, env: dict[str, str] | None = None) -> Settings:
    return load_settings(command_tree().call(["observe", *arguments]), env or {})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "hubble" / "config.yaml"


def test_the_first_that_speaks_wins(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("server: file:1\ntimeout: 7s\n")
    env = {"HUBBLE_SERVER": "hubble:1", "FLOWSCOPE_SERVER": "flowscope:1", "HUBBLE_TLS": ""}
    assert settings_of("--server", "flag:1", env=env).text("server") == "flag:1"
    assert settings_of("--config", str(path), env=env).text("server") == "flowscope:1"
    assert settings_of("--config", str(path)).text("server") == "file:1"
    assert settings_of("--config", str(path)).number("timeout") == 7_000_000_000
    assert settings_of().text("server") == "localhost:4245"


def test_lists_in_the_environment_are_split_at_blanks() -> None:
    env = {"HUBBLE_TLS_CA_CERT_FILES": "a,b  c", "HUBBLE_ALLOWLIST": '{"uuid":["1"]} {}'}
    settings = settings_of(env=env)
    assert settings.items("tls-ca-cert-files") == ("a,b", "c")
    assert settings.items("allowlist") == ('{"uuid":["1"]}', "{}")


def test_what_makes_no_sense_becomes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("tls: maybe\nrequest-timeout: soon\nport-forward-port: 99999\nserver: [a]\n")
    settings = settings_of("--config", str(path))
    assert (settings.on("tls"), settings.number("request-timeout"), settings.number("port-forward-port")) == (
        False,
        0,
        0,
    )
    path.write_text("a: [broken")
    assert settings_of("--config", str(path)).text("server") == "localhost:4245"


def test_only_connection_flags_come_from_elsewhere() -> None:
    call = command_tree().call(["observe"])
    assert "output" not in load_settings(call, {"HUBBLE_OUTPUT": "json"}).values


def test_config_set_writes_only_that_key(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "set", "server", "relay:1"]) == 0
    assert main(["config", "set", "tls", "1"]) == 0
    assert main(["config", "set", "tls-ca-cert-files", "[a,b]"]) == 0
    assert file.read_text() == "server: relay:1\ntls: true\ntls-ca-cert-files:\n    - a\n    - b\n"
    assert main(["config", "get", "server"]) == 0
    assert main(["config", "get", "port-forward-port"]) == 0
    assert main(["config", "get", "request-timeout"]) == 0
    assert capsys.readouterr().out == 'relay:1\n"4245"\n12s\n'


def test_config_reset_writes_defaults(file: Path) -> None:
    assert main(["config", "set", "server", "relay:1"]) == 0
    assert main(["config", "reset", "server"]) == 0
    assert file.read_text() == "server: localhost:4245\n"
    assert main(["config", "reset"]) == 0
    assert yaml.safe_load(file.read_text())["tls-ca-cert-files"] == []


def test_config_view_shows_all_keys_sorted(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "view", "--tls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    keys = [line.partition(":")[0] for line in lines]
    assert keys == sorted(keys)
    assert {"tls: true", 'port-forward-port: "4245"', "tls-ca-cert-files: []", 'kubeconfig: ""', "timeout: 5s"} <= {
        *lines
    }
    assert f"config: {file}" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["get", "a", "b"], "invalid arguments: get requires exactly 0 or 1 argument: got 'a b'"),
        (["set"], "invalid arguments: set requires exactly 1 or 2 argument(s): got ''"),
        (["reset", "a", "b"], "invalid arguments: resset requires exactly 0 or 1 argument: got 'a b'"),
        (["get", "x"], "unknown key: x"),
        (
            ["set", "tls", "yes"],
            'cannot assign value=yes for key=tls, expected type=bool: strconv.ParseBool: parsing "yes": invalid syntax',
        ),
        (["set", "server", "x", "--config", ""], "config file undefined"),
        (["set", "server", "x", "--config", "/tmp/x"], "config type could not be determined for /tmp/x"),
    ],
)
def test_config_mistakes_are_named(
    arguments: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", *arguments]) == 1
    assert capsys.readouterr().err == message + "\n"


def test_a_broken_file_is_not_overwritten(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.parent.mkdir()
    file.write_text("a: [broken")
    assert main(["config", "set", "server", "x"]) == 1
    assert capsys.readouterr().err.startswith("While parsing config: ")
    assert file.read_text() == "a: [broken"


@pytest.mark.parametrize(
    "text", ["4245", "true", "no", "~", "a: b", "- a", "'", '"', "a#b", "a #b", "1e3", "é", "\t", "0x1"]
)
def test_scalars_read_back_as_the_same_text(text: str) -> None:
    assert yaml.safe_load(f"key: {scalar(text)}") == {"key": text}
