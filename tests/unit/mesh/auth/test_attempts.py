"""Which pairs are tried when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpf.facts import AuthPair
from mesh.auth.attempts import EAGER, FORGOTTEN_S, LONGEST_PAUSE_S, MOST_PAIRS, MOST_RUNNING, Attempts

PAIR = AuthPair(300, 301, 1, 1)


def pairs(count: int) -> list[AuthPair]:
    return [AuthPair(300, 301 + number, 1, 1) for number in range(count)]


def test_a_pair_is_tried_once_at_a_time_and_again_when_it_is_asked_for() -> None:
    attempts = Attempts()
    assert attempts.due([PAIR], 0) == [PAIR]
    assert attempts.due([PAIR], 100) == []
    attempts.succeeded(PAIR)
    assert attempts.failures() == {}
    assert attempts.due([PAIR], 101) == [PAIR]


def test_a_failure_is_news_once_and_is_tried_again_of_itself_after_a_pause() -> None:
    attempts = Attempts()
    attempts.due([PAIR], 0)
    assert attempts.failed(PAIR, "no certificate", 0)
    assert attempts.due([PAIR], 0.09) == []
    assert attempts.due([PAIR], 0.11) == [PAIR]
    assert not attempts.failed(PAIR, "no certificate", 0.11)
    assert attempts.answered(1) == []
    assert attempts.due([PAIR], 0.3) == [], "the second pause is longer"
    assert attempts.due([PAIR], 0.32) == [PAIR]
    assert attempts.failed(PAIR, "no answer", 0.32)
    assert attempts.failures() == {PAIR: "no answer"}


def test_after_some_failures_a_pair_waits_for_a_packet() -> None:
    attempts, now_s = Attempts(), 0.0
    for _ in range(EAGER):
        assert attempts.due([PAIR], now_s) == [PAIR]
        attempts.failed(PAIR, "no answer", now_s)
        now_s += LONGEST_PAUSE_S
    assert attempts.due([PAIR], now_s) == [], "the kernel's old question does not count"
    assert attempts.answered(now_s) == [PAIR]
    assert attempts.answered(now_s) == [], "once is enough"
    assert attempts.due([], now_s) == []
    assert attempts.due([PAIR], now_s) == [PAIR], "a packet has asked"
    attempts.failed(PAIR, "no answer", now_s)
    assert attempts.answered(now_s + LONGEST_PAUSE_S) == [PAIR]
    assert attempts.answered(now_s + 2 * LONGEST_PAUSE_S + FORGOTTEN_S) == []
    assert attempts.failures() == {}, "nobody asks any more"


def test_no_more_than_some_run_and_no_more_than_many_wait() -> None:
    attempts = Attempts()
    first = attempts.due(pairs(MOST_PAIRS + 5), 0)
    assert len(first) == MOST_RUNNING
    rounds = 0
    while running := [*first]:
        for pair in running:
            attempts.failed(pair, "no answer", rounds)
        first = attempts.due(pairs(MOST_PAIRS + 5)[MOST_RUNNING * (rounds + 1) :], 0)
        rounds += 1
    assert len(attempts.failures()) == MOST_PAIRS
    assert attempts.refused


def test_pairs_that_no_policy_asks_for_are_forgotten() -> None:
    attempts = Attempts()
    attempts.due([PAIR], 0)
    assert attempts.keep(lambda pair: False) == [], "its handshake is not over"
    attempts.failed(PAIR, "no answer", 0)
    assert attempts.keep(lambda pair: True) == []
    assert attempts.keep(lambda pair: False) == [PAIR]
    assert attempts.failures() == {}


@given(
    st.lists(st.tuples(st.sampled_from(["due", "fail", "succeed", "answer", "keep"]), st.integers(0, 40)), max_size=60)
)
def test_whatever_happens_a_pair_is_never_stuck(steps: list[tuple[str, int]]) -> None:
    attempts, now_s, running = Attempts(), 0.0, set[AuthPair]()
    for step, number in steps:
        now_s += number / 10
        pair = pairs(41)[number]
        if step == "due":
            started = attempts.due([pair], now_s)
            assert not running & set(started)
            running |= set(started)
        elif step == "fail" and pair in running:
            attempts.failed(pair, "x", now_s)
            running.discard(pair)
        elif step == "succeed" and pair in running:
            attempts.succeeded(pair)
            running.discard(pair)
        elif step == "answer":
            assert not running & set(attempts.answered(now_s))
        elif step == "keep":
            assert not running & set(attempts.keep(pair.__ne__))
        assert len(running) <= MOST_RUNNING
    for pair in running:
        attempts.failed(pair, "x", now_s)
    now_s += LONGEST_PAUSE_S
    attempts.answered(now_s)
    for pair in pairs(41):
        assert attempts.due([pair], now_s) == [pair]
        attempts.succeeded(pair)
