"""How many connections this process may have open: as many as the system lets us ask for.

At the limit ZeroMQ can't take the next connection and tries again without a pause: idle connections alone would then
hold a station's core and shut a pilot out.
"""

from __future__ import annotations

import contextlib

WANTED = 65_536
MACOS_MOST = 10_240


def raise_limit(wanted: int = WANTED) -> int | None:
    """Let this process open more files and connections.

    Args:
        wanted: how many, at most; never fewer than are allowed now, never more than the system's hard limit.

    Returns:
        How many are allowed now; None where there is no such limit (Windows).
    """
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    for most in (wanted, MACOS_MOST):
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if allowed > soft:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
                return allowed
    return soft
