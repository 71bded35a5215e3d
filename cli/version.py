"""Which version this is, and which level of the observer API it speaks.

In:        metadata of the installed package.
Out:       the texts of `flowscope version` and of the version check against servers.
"""

from __future__ import annotations

from typing import Final

from service.version import package_version

API_VERSION: Final = "1.19.4"
"""The release of Hubble whose API, flags and output this client implements."""


def version() -> str:
    """In the form of Hubble's: `<version>@<branch>-<hash>`. Scripts read the part before the `@`."""
    return f"{API_VERSION}@flowscope-{package_version()}"


def version_line() -> str:
    """The line of `flowscope version`."""
    import platform
    import sys

    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"hubble {version()} compiled with {python} on {sys.platform}/{machine}"
