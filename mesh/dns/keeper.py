"""The agent's side of DNS: keeps the proxy running, gives it rules, and remembers what it learns.

In:        rules from the policy; what the proxy learned; which addresses connections are open to.
Out:       a running proxy that obeys; names by address, kept in a file; a call when the policy has to know them.
Elsewhere: link.py is the proxy's side; names.py knows lifetimes; mesh/main.py is who is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import structlog

from mesh.child import Child
from mesh.config import AgentConfig
from mesh.dns.judge import Rules
from mesh.dns.link import LARGEST_MESSAGE, parse_learned
from mesh.dns.names import Address, InUse, Limits, Names
from mesh.dns.patterns import selectors_of
from mesh.dns.words import WORDS_VERSION
from mesh.files import write_atomically
from mesh.policy.documents.fields import Network
from service.failure import Failure

OBEY_S: Final = 3.0
"""How long a round waits for the proxy; without it the kernel refuses what the proxy would judge, so this is safe."""
SAVE_S: Final = 0.2
"""What was learned is in the file after so long; until then the proxy remembers it, too."""
LARGEST_SELECTION: Final = 16_384

log = structlog.get_logger(component="agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """Of the proxy and of names; see AgentConfig."""

    records: str = ""
    reject_with: str = "refused"
    max_delay_s: float = 0.1
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, config: AgentConfig) -> DnsSettings:
        """From the agent's settings."""
        limits = Limits(
            min_ttl_s=config.tofqdns_min_ttl_s,
            max_addresses=config.tofqdns_max_ips,
            grace_s=config.tofqdns_idle_grace_s,
        )
        return cls(
            records=config.records_socket,
            reject_with=config.tofqdns_reject,
            max_delay_s=config.tofqdns_max_delay_s,
            limits=limits,
        )


class DnsNode:
    """Belongs to the agent's loop."""

    def __init__(
        self,
        folder: Path,
        settings: DnsSettings,
        port: Callable[[], int],
        learned: Callable[[set[Address]], Awaitable[None]],
    ) -> None:
        """
        folder   the node's run folder: socket, file of names and process id live there.
        port     where the proxy is to listen.
        learned  called with addresses of which the names have changed; done when it returns.
        """
        self.names = Names(settings.limits)
        self._folder = folder
        self._settings = settings
        self._port = port
        self._learned = learned
        self._rules = Rules()
        self._revision = 0
        self._obeyed = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None
        self._child = Child("dns-proxy", self._command, folder / "dns-proxy.pid")
        self._saving: asyncio.TimerHandle | None = None
        self._spreading: set[asyncio.Task[None]] = set()
        """What was learned and is on its way to policies and kernel."""
        self._selectors: tuple[str, ...] = ()
        self._selections: dict[tuple[str, ...], tuple[str, ...]] = {}

    async def start(self) -> None:
        """Remember names, and wait for the proxy. Raises: Failure when the socket cannot be made."""
        self._restore()
        path = self._folder / "dns.sock"
        path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.start_unix_server(self._serve, path, limit=LARGEST_MESSAGE)
        except OSError as error:
            raise Failure(f"cannot make {path}: {error.strerror}; choose a run folder that is writable") from error
        os.chmod(path, 0o600)

    async def stop(self) -> None:
        """Let the proxy go on alone."""
        self._child.let_go()
        for task in self._spreading:
            task.cancel()
        if self._saving is not None:
            self._saving.cancel()
            self._save()
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()

    async def update(self, rules: Rules) -> None:
        """Give the proxy these rules, and wait until it obeys; the first ones start it."""
        self.keep_selectors(rules.selectors)
        if rules == self._rules:
            return
        self._rules = rules
        self._revision += 1
        self._obeyed.clear()
        if rules.clients:
            self._child.start()
        elif not self._child.pid:
            return
        self._tell_rules()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OBEY_S):
                await self._obeyed.wait()
                return
        log.warning("the dns proxy does not answer; its clients are refused until it does", pid=self._child.pid)

    def keep_selectors(self, selectors: Iterable[str]) -> None:
        """These are the names in toFQDNs."""
        wanted = tuple(sorted(set(selectors)))
        if wanted != self._selectors:
            self._selectors = wanted
            self._selections.clear()

    def selected(self) -> dict[Network, tuple[str, ...]]:
        """Which toFQDNs selectors stand for an address, for all addresses that any stands for."""
        found: dict[Network, tuple[str, ...]] = {}
        if self._selectors:
            for address in self.names.addresses():
                selectors = self.selectors_of(address)
                if selectors:
                    found[ip_network(address)] = selectors
        return found

    def selectors_of(self, address: Address) -> tuple[str, ...]:
        """Those that mean any of an address' names."""
        names = self.names.of_address(address)
        found = self._selections.get(names)
        if found is None:
            if len(self._selections) >= LARGEST_SELECTION:
                self._selections.clear()
            found = self._selections[names] = selectors_of(names, self._selectors)
        return found

    async def expire(self, in_use: InUse) -> None:
        """Forget what is over; call it every minute or so."""
        changed = self.names.expire(time.time(), in_use)
        if changed:
            self._save_soon()
            await self._learned(changed)

    def keep_endpoints(self, numbers: Iterable[int]) -> None:
        """Forget what endpoints knew that are gone."""
        if self.names.keep_endpoints(numbers):
            self._save_soon()

    def status(self) -> Mapping[str, Any]:
        """For whoever asks how it goes."""
        return {"pid": self._child.pid, "restarts": self._child.restarts, "connected": self._writer is not None}

    # ---- the proxy ----

    def _command(self) -> list[str]:
        settings = self._settings
        flags = {
            "agent": self._folder / "dns.sock",
            "port": self._port(),
            "records": settings.records,
            "reject-with": settings.reject_with,
            "max-delay-s": settings.max_delay_s,
        }
        return [sys.executable, "-m", "cli", "dns-proxy", *(f"--{name}={value}" for name, value in flags.items())]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One proxy. There is one at a time; a second one is a successor."""
        try:
            hello = json.loads(await reader.readline() or "{}")
            if hello.get("hello") != WORDS_VERSION or hello.get("port") != self._port():
                log.info("dns proxy of another version or port is replaced", pid=hello.get("pid"))
                # One that an agent before us left is not watched before it is wanted.
                self._child.start()
                self._child.end()
                return
            self._writer = writer
            self._hear(hello, writer)
            self._tell_rules()
            while line := await reader.readline():
                message = json.loads(line)
                if "obeyed" in message and message["obeyed"] == self._revision:
                    self._obeyed.set()
                self._hear(message, writer)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("dns proxy lost", error=str(error))
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    def _hear(self, message: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        """What was learned; answered when the policy knows it."""
        now_s = time.time()
        changed: set[Address] = set()
        for endpoint, name, addresses, ttl_s in parse_learned(message.get("learned", [])):
            changed |= self.names.learn(endpoint, name, addresses, ttl_s, now_s)
        if "learned" in message:
            self._save_soon()
        number = message.get("number")
        if changed:
            # Others need not wait for it: the line is read on.
            task = asyncio.create_task(self._spread(changed, number, writer))
            self._spreading.add(task)
            task.add_done_callback(self._spreading.discard)
        elif number is not None:
            _tell_known(number, writer)

    async def _spread(self, changed: set[Address], number: int | None, writer: asyncio.StreamWriter) -> None:
        try:
            await self._learned(changed)
        except Exception:
            # The next round of the agent looks at everything again.
            log.exception("names could not be learned")
        else:
            if number is not None and not writer.is_closing():
                _tell_known(number, writer)

    def _tell_rules(self) -> None:
        if self._writer is not None and self._revision:
            message = {"rules": self._rules.as_json(), "revision": self._revision}
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    # ---- the file ----

    def _restore(self) -> None:
        path = self._folder / "dns-names.json"
        try:
            self.names.restore(json.loads(path.read_text()), time.time())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            # The pods will ask again.
            log.warning("names of an earlier run are not readable", file=str(path), error=str(error))

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_S, self._save)

    def _save(self) -> None:
        self._saving = None
        try:
            write_atomically(self._folder / "dns-names.json", self.names.dump())
        except Failure as failure:
            log.warning("names are not saved", error=str(failure))


def _tell_known(number: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b'{"known":%d}\n' % number)
