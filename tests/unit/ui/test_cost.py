"""What observation costs, as the page tells it."""

from __future__ import annotations

from proto.flowscope.cost_pb2 import GetCostResponse, ProcessCost, ProgramCost
from ui.cost import Costs

S = 10**9


def observer(cpu_s: float, up_s: float, *programs: ProgramCost, **more: str) -> ProcessCost:
    return ProcessCost(
        node_name="node-1",
        role="observer",
        cpu_ns=int(cpu_s * S),
        uptime_ns=int(up_s * S),
        memory_bytes=100 << 20,
        programs=programs,
        **more,
    )


def told(*answers: ProcessCost) -> Costs:
    costs = Costs()
    for answer in answers:
        costs.take(GetCostResponse(processes=[answer]))
    return costs


def test_cost_is_what_it_is_now_and_not_the_average_since_the_start() -> None:
    before = observer(50, 100, ProgramCost(name="from_container", runs=1_000, run_ns=9_000_000))
    now = observer(50.1, 102, ProgramCost(name="from_container", runs=3_000, run_ns=11_000_000))
    process = told(before, now).look()["processes"][0]
    assert (process["cpu_percent"], process["memory_mib"]) == (5.0, 100.0)
    assert process["programs"] == [{"name": "from_container", "ns": 1_000, "per_s": 1_000.0}]


def test_a_sentence_says_all_of_it() -> None:
    busy = [ProgramCost(name=name, runs=100, run_ns=100_000) for name in ("from_container", "to_container")]
    busier = [ProgramCost(name=name, runs=2_100, run_ns=2_100_000) for name in ("from_container", "to_container")]
    first, second = told(observer(1, 10, *busy), observer(1.2, 12, *busier)).look()["sentences"]
    assert first.startswith("Observing takes ")
    assert "the observer 10.0% and 100 MiB" in first
    assert "the dashboard" in first
    assert "1,000 ns at each hook" in second
    assert "2,000 times a second: 0.20% of one CPU" in second


def test_a_program_that_is_idle_or_counts_anew_still_has_a_mean() -> None:
    program = ProgramCost(name="to_netdev", runs=10, run_ns=7_000)
    for before in (program, ProgramCost(name="to_netdev", runs=500, run_ns=1)):
        look = told(observer(1, 10, before), observer(1, 12, program)).look()
        assert look["processes"][0]["programs"] == [{"name": "to_netdev", "ns": 700, "per_s": 0.0}]
        assert "nothing runs now" in look["sentences"][1]


def test_a_process_that_was_started_anew_is_not_compared_with_the_old_one() -> None:
    assert told(observer(50, 100), observer(0.5, 5)).look()["processes"][0]["cpu_percent"] == 10.0


def test_what_is_not_known_has_a_reason() -> None:
    look = told(observer(1, 10, kernel_problem="needs root")).look()
    assert look["sentences"][1] == "In the kernel: needs root."
    look = told(ProcessCost(node_name="node-2", role="observer", problem="not connected")).look()
    assert look["sentences"][1] == "In the kernel: not known."
    assert [(one["role"], one["problem"]) for one in look["processes"]] == [
        ("observer", "not connected"),
        ("dashboard", ""),
    ]
    assert Costs().look()["processes"][0]["role"] == "dashboard"
