"""`python -m observer`: the observer without the rest of the command line. Flags are those of `flowscope observer`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from observer.config import ObserverConfig
from observer.main import serve
from service.failure import Failure
from service.run import fail, run
from service.settings import load, settings_of


def main() -> int:
    """Parse flags, load settings, run."""
    parser = argparse.ArgumentParser(prog="python -m observer")
    for one in settings_of(ObserverConfig):
        if one.type is bool:
            parser.add_argument(f"--{one.flag}", dest=one.name, help=one.help, action="store_const", const=True)
        else:
            parser.add_argument(f"--{one.flag}", dest=one.name, help=one.help)
    parser.add_argument("--config", type=Path, help="configuration file (TOML)")
    given = vars(parser.parse_args())
    file = given.pop("config")
    try:
        config = load(ObserverConfig, "observer", given, file=file)
    except Failure as failure:
        return fail(failure)
    return run(serve, config)


if __name__ == "__main__":
    sys.exit(main())
