"""`flowscope dns-proxy`: the process that answers the pods of a node.

In:        settings; rules from the agent; queries from the kernel.
Out:       answers, records, names.
Elsewhere: keeper.py starts and watches this process.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Final

import structlog

from mesh.dns.config import DnsProxyConfig
from mesh.dns.engine import REJECTIONS, Engine, Limits
from mesh.dns.judge import Judge
from mesh.dns.link import Link
from mesh.dns.tcp import Tcp
from mesh.dns.udp import Udp
from mesh.dns.words import WORDS_VERSION
from mesh.records import Records
from service.failure import Failure

REPORT_S: Final = 60.0

log = structlog.get_logger(component="dns-proxy")


async def serve(config: DnsProxyConfig, stop: asyncio.Event, _reload: asyncio.Event) -> None:
    """Run until `stop`. Raises: Failure."""
    rejection = REJECTIONS.get(config.reject_with)
    if rejection is None:
        raise Failure(f"--reject-with is one of {', '.join(REJECTIONS)}, got {config.reject_with!r}")
    records = Records(config.records)
    judge = Judge()
    hello = {"hello": WORDS_VERSION, "port": config.port, "pid": os.getpid()}
    link = Link(config.agent, hello, judge, config.max_delay_s)
    limits = Limits(config.max_waiting, config.max_waiting_per_client, config.upstream_timeout_s)
    engine = Engine(judge, records, limits, rejection, link)
    try:
        udp, tcp = Udp(engine, config.port), Tcp(engine, config.port)
    except OSError as error:
        raise Failure(
            f"cannot listen on port {config.port}: {error.strerror}; it needs root, and a port that no process has"
        ) from error
    # Told to the agent only now: whoever hears of us may send packets here.
    work = [
        asyncio.create_task(link.run(), name="link"),
        asyncio.create_task(report(engine, records, link), name="report"),
    ]
    log.info("dns proxy listening", port=config.port)
    try:
        await stop.wait()
    finally:
        for task in work:
            task.cancel()
        udp.close()
        tcp.close()
        records.close()


async def report(engine: Engine, records: Records, link: Link) -> None:
    """Tell now and then what happened, when something did."""
    told: Counter[str] = Counter()
    while True:
        await asyncio.sleep(REPORT_S)
        counts = engine.counts + Counter(lost_records=records.lost, late_answers=link.late)
        if counts != told:
            log.info("queries", waiting=engine.waiting, **counts)
            told = counts
