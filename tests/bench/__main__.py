"""Every figure, as JSON: `python -m tests.bench [topic ...]`.

A topic is a module tests/bench/bench_<topic>.py with `run() -> dict[str, object]`. A topic that fails reports its
error and the rest goes on. Figures are read beside the machine they were measured on.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "kernel": platform.release(),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def main(topics: list[str]) -> int:
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = [topic for topic in topics if topic not in known]
    if unknown:
        print(f"bench: no topic {unknown[0]!r}; topics are {', '.join(known)}", file=sys.stderr)
        return 1
    results: dict[str, object] = {"machine": machine()}
    failed = False
    for topic in topics or known:
        print(f"bench: {topic} ...", file=sys.stderr)
        started = time.monotonic()
        try:
            figures = dict(importlib.import_module(f"tests.bench.bench_{topic}").run())
        except Exception as error:
            figures, failed = {"error": f"{type(error).__name__}: {error}"}, True
        figures["took_s"] = round(time.monotonic() - started, 1)
        results[topic] = figures
    print(json.dumps(results, indent=2, default=float))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
