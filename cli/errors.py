"""How a command ends badly.

In:        what went wrong, in words that name the thing.
Out:       one message on stderr and exit code 1 (__main__.py).
"""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot go on; str() is printed alone, without the program's name, as Hubble does."""
