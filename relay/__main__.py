"""`python -m relay`: the relay with settings from flags of the form --name value, the environment and the file."""

from __future__ import annotations

import sys

from relay.config import RelayConfig
from relay.main import serve
from service.failure import Failure
from service.run import fail, run
from service.settings import load


def main(words: list[str]) -> int:
    """Run the relay; returns the exit code."""
    flags: dict[str, object] = {}
    try:
        for word in words:
            name, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--"):
                raise Failure(f"unexpected argument {word!r}; flags are --name=value")
            flags[name.replace("-", "_")] = value if equals else True
        config = load(RelayConfig, "relay", flags)
    except Failure as failure:
        return fail(failure)
    return run(serve, config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
