"""Nothing in a test may reach an address that is not loopback, nor may a process that it starts."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path

HERE = Path(__file__).parent
"""What is in it: `sitecustomize.py`, which each Python reads first, and `.curlrc`."""
NAMES = (None, "", "localhost")
"""Names that stand for this machine; nothing and the empty one ask where to listen."""
TO_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")
TO_HOST = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def keep_to_loopback() -> None:
    """Refuse, for as long as this process lives, to reach or to look up any other address.

    Python tells of each attempt, in whichever of its libraries it is made. Processes that this one
    starts, and theirs, inherit the guard unless they are given another environment.
    """
    sys.addaudithook(_refuse)
    os.environ |= environment(os.environ.get("PYTHONPATH"))


def environment(before: str | None = None) -> dict[str, str]:
    """Return the variables that guard Python and curl in a process of its own.

    Args:
        before: a PYTHONPATH that the process needs as well.
    """
    paths = (before or "").split(os.pathsep)
    kept = [path for path in paths if path and path != str(HERE)]
    return {"PYTHONPATH": os.pathsep.join([str(HERE), *kept]), "CURL_HOME": str(HERE)}


def _refuse(event: str, details: tuple[object, ...]) -> None:
    if not event.startswith("socket."):
        return
    if event in TO_HOST:
        _check(details[0])
    elif event == "socket.getnameinfo":
        _check_address(details[0])
    elif event in TO_ADDRESS and _is_internet(details[0]):
        _check_address(details[1])


def _is_internet(end: object) -> bool:
    return getattr(end, "family", None) in (socket.AF_INET, socket.AF_INET6)


def _check_address(address: object) -> None:
    # A connected socket sends without an address.
    if isinstance(address, tuple):
        _check(address[0])


def _check(host: object) -> None:
    name = host.decode(errors="replace") if isinstance(host, bytes | bytearray) else host
    if name in NAMES:
        return
    try:
        is_here = ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise AssertionError(f"a test tried to reach {name}, which is not on this machine")
