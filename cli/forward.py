"""Port forwarding into a Kubernetes cluster, by kubectl.

In:        Settings: kubeconfig, context, namespace, local port.
Out:       the address of a local port that leads to the relay, for as long as it is needed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from cli import log
from cli.errors import CommandError
from cli.settings import Settings

SERVICE: Final = "hubble-relay"


@asynccontextmanager
async def forwarded(settings: Settings) -> AsyncIterator[str]:
    """Forward a local port to the relay's service; the address to connect to.

    Raises: CommandError.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise CommandError("failed to create k8s port forwader: kubectl is not installed; it does the forwarding")
    command = [kubectl, "--namespace", settings.text("kube-namespace")]
    if settings.text("kubeconfig"):
        command += ["--kubeconfig", settings.text("kubeconfig")]
    if settings.text("kube-context"):
        command += ["--context", settings.text("kube-context")]
    remote = await _first_port(command)
    local = settings.number("port-forward-port") or ""
    process = await asyncio.create_subprocess_exec(
        *command,
        "port-forward",
        f"service/{SERVICE}",
        f"{local}:{remote}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = (await process.stdout.readline()).decode(errors="replace")
        match = re.search(r"Forwarding from (127\.0\.0\.1:\d+)", line)
        if match is None:
            reason = (await process.stderr.read()).decode(errors="replace")
            raise CommandError(f"failed to port forward: {' '.join(reason.split()) or line.strip()}")
        log.debug("port-forward to hubble-relay pod running", addr=match[1])
        # kubectl reports every connection; nobody reads that, and a full pipe would stop it.
        drain = asyncio.create_task(process.stdout.read())
        yield match[1]
        drain.cancel()
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _first_port(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        "get",
        "service",
        SERVICE,
        "--output",
        "jsonpath={.spec.ports[0].port}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise CommandError(f"failed to port forward: {' '.join(errors.decode(errors='replace').split())}")
    return out.decode().strip()
