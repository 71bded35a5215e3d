"""Where a setting's value comes from, and what is said when it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from service.failure import Failure
from service.settings import load, setting, settings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    listen: tuple[str, ...] = setting(("localhost:1",), "where to listen")
    ring_flows: int = setting(7, "flows kept")
    drain_s: float = setting(5.0, "seconds to drain")
    insecure: bool = setting(False, "no TLS")


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "flowscope.toml"
    file.write_text("[observer]\nring_flows = 1\ndrain_s = 1\nlisten = ['a:1', 'b:2']\n")
    env = {"FLOWSCOPE_OBSERVER_RING_FLOWS": "3", "FLOWSCOPE_OBSERVER_DRAIN_S": "2"}
    config = load(Config, "observer", {"ring_flows": 15}, env, file)
    assert config == Config(ring_flows=15, drain_s=2.0, listen=("a:1", "b:2"))


def test_words_are_split_at_commas_and_truth_has_many_names() -> None:
    env = {"FLOWSCOPE_RELAY_LISTEN": "a:1, b:2,", "FLOWSCOPE_RELAY_INSECURE": "Yes"}
    assert load(Config, "relay", env=env) == Config(listen=("a:1", "b:2"), insecure=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[observer]\nring_flow = 1", "unknown key 'ring_flow' in [observer]"),
        ("[observer]\nring_flows = 'many'", "key 'ring_flows' in [observer]: expected int, got 'many'"),
        ("[observer]\nring_flows = true", "expected int, got True"),
        ("[observer]\nring_flows = 1.5", "expected int, got 1.5"),
        ("[observer\n", "is not valid TOML"),
        ("observer = 3", "must be a table"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong_in_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "flowscope.toml"
    file.write_text(text)
    with pytest.raises(Failure) as failure:
        load(Config, "observer", file=file, env={})
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot read configuration file"):
        load(Config, "observer", file=tmp_path / "none.toml", env={})


def test_settings_carry_their_flag_type_and_help() -> None:
    assert [(one.flag, one.type) for one in settings_of(Config)] == [
        ("listen", tuple),
        ("ring-flows", int),
        ("drain-s", float),
        ("insecure", bool),
    ]
