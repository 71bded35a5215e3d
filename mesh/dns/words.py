"""What agent and DNS proxy say to each other: JSON objects, one per line, over the agent's Unix socket.

proxy: {"hello": WORDS_VERSION, "port": 10000, "pid": 7, "learned": [...]}   first; what it still remembers
agent: {"rules": judge.Rules as JSON, "revision": 3}    at once, and whenever they change
proxy: {"obeyed": 3}                                    the rules hold now
proxy: {"learned": [[endpoint, name, [address...], ttl_s]...], "number": 12}
agent: {"known": 12}                                    the policy knows; only where there was a number
"""

from __future__ import annotations

from typing import Final

WORDS_VERSION: Final = 1
"""Changes when these words do: an agent replaces a proxy that speaks another."""
