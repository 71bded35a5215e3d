"""Which release of Flowscope runs.

In:        metadata of the installed package.
Out:       its version, for whoever says what it is.
Elsewhere: cli/version.py knows which release of Hubble the client stands for.
"""

from __future__ import annotations


def package_version() -> str:
    """Flowscope's own version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flowscope")
    except PackageNotFoundError:
        return "0.0.0"
