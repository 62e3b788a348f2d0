"""Nothing in a test may reach an address that is not loopback."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class NotLoopback(AssertionError):
    """A test tried to leave this machine."""


def check(address: Any) -> None:
    """Refuse an address beyond this machine; sockets of a file system have none."""
    if not isinstance(address, tuple):
        return
    host = str(address[0])
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here:
        raise NotLoopback(f"a test tried to reach {host}:{address[1]}")


@contextmanager
def only_loopback() -> Iterator[None]:
    """Refuse to resolve or to connect to anything beyond this machine."""
    connect, connect_ex, resolve = (
        socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo,
    )  # fmt: skip

    def guarded(self: socket.socket, address: Any) -> None:
        check(address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    def resolved(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host is not None:
            check((host.decode() if isinstance(host, bytes) else host, port))
        return resolve(host, port, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setattr(socket.socket, "connect_ex", guarded_ex)
        patch.setattr(socket, "getaddrinfo", resolved)
        yield
