"""A container that waits: the curl clients, and pods that are only there to be entered.

In:        SIGTERM.
Out:       nothing.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Blocked first: a signal that arrives before sigwait must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
