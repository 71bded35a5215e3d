"""A large file of JSON lines, made of the golden mix.

In:        golden/bench: 2,000 flows of 1,000 pods with 7 labels each; 3 % HTTP, 2 % DNS.
Out:       lines of any number of flows, each with its own time, uuid and source port, each request with its own id.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

from model.text.times import json_time

_START_NS = 1_768_471_200_000_000_000


def flow_lines(golden: Path, count: int) -> Iterator[bytes]:
    """So many lines, with line ends, in order of time."""
    times = json_time()
    templates = list(_templates(golden))
    for number in range(count):
        before, middle, behind = templates[number % len(templates)]
        round_number = number // len(templates)
        seconds, nanos = divmod(_START_NS + number * 10_001, 1_000_000_000)
        time = times.one(seconds, nanos)
        uuid = f"c0ffee00-0000-4000-8000-{number:012x}"
        port = f'"source_port":{32_768 + (number * 7 + round_number) % 28_000}'
        line = f'{before}{time}{middle}{uuid}{behind}{time}"}}\n'
        if '"l7"' in line:
            line = line.replace('X-Request-Id","value":"', f'X-Request-Id","value":"{round_number}-')
        else:
            line = re.sub(r'"source_port":\d+', port, line, count=1)
        yield line.encode()


def _templates(golden: Path) -> Iterator[tuple[str, str, str]]:
    with gzip.open(golden / "bench" / "bench-mix.expected.jsonl.gz", "rt") as file:
        for line in file:
            entry = json.loads(line)
            if entry["result"] != "flow":
                continue
            flow = entry["json"]
            text = json.dumps(flow, separators=(",", ":"), ensure_ascii=False)
            before, _, rest = ('{"flow":' + text).partition(flow["time"])
            middle, _, behind = rest.partition(flow["uuid"])
            yield before, middle, f'{behind},"node_name":"{flow["node_name"]}","time":"'
