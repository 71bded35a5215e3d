"""A process with an Envoy and what an agent does for it, to be killed and stopped.

In:        a folder for Envoy, and the port of its first listener; the three next ones are taken too.
Out:       an Envoy that refuses every request; records, to `records.sock` in the folder.
Elsewhere: tests/integration/mesh/envoy/test_accounting.py counts them.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mesh.envoy.node import PARSERS, EnvoyNode
from mesh.records import Records


async def main(folder: Path, first: int) -> None:
    def port(parser: str, egress: bool) -> int:
        return first + 2 * PARSERS.index(parser) + egress

    records = Records(str(folder / "records.sock"))
    node = EnvoyNode(folder, "n", port, records, concurrency=1, addresses=("127.0.0.1",))
    await node.start()
    while not await node.is_listening():
        await asyncio.sleep(0.02)
    (folder / "envoy.ready").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
