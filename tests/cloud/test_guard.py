"""Whatever would leave this machine is refused, in a test and in what it starts."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest

from symbio_core.compute.gce import Provisioner
from symbio_core.config import GceSettings
from tests.cloud.compute_server import ComputeServer
from tests.compute.conftest import HASTY, order
from tests.loopback import guard
from tests.waiting import until

AWAY = ("192.0.2.1", 9)
"""An address that documents use and nobody has, and a name like it."""
NAME = "nobody.invalid"


def tcp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


WAYS: dict[str, Callable[[], object]] = {
    "connect": lambda: tcp().connect(AWAY),
    "connect_ex": lambda: tcp().connect_ex(AWAY),
    "connect over IPv6": lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 9)),
    "create_connection": lambda: socket.create_connection(AWAY, 1),
    "sendto": lambda: udp().sendto(b"x", AWAY),
    "sendto with flags": lambda: udp().sendto(b"x", 0, AWAY),
    "sendmsg": lambda: udp().sendmsg([b"x"], [], 0, AWAY),
    "getaddrinfo": lambda: socket.getaddrinfo(NAME, 80),
    "getaddrinfo of bytes": lambda: socket.getaddrinfo(NAME.encode(), 80),
    "gethostbyname": lambda: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda: socket.gethostbyaddr(AWAY[0]),
    "getnameinfo": lambda: socket.getnameinfo(AWAY, 0),
    "urllib": lambda: urlopen(f"http://{NAME}/", timeout=1),
    "httpx": lambda: httpx.get(f"http://{AWAY[0]}/", timeout=1),
    "asyncio": lambda: asyncio.run(open_away()),
}


async def open_away() -> None:
    async with asyncio.timeout(1):
        await asyncio.open_connection(*AWAY)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_away_from_this_machine(way: str) -> None:
    with pytest.raises(AssertionError, match=r"a test tried to reach (192\.0|2001:db8|nobody)"):
        WAYS[way]()


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_this_machine_is_reached_by_number_and_by_name(port: int) -> None:
    for host in ("127.0.0.1", "localhost"):
        assert httpx.get(f"http://{host}:{port}/").status_code == 200
        with urlopen(f"http://{host}:{port}/") as answer:
            assert answer.status == 200


def test_sockets_of_the_file_system_and_pairs_are_none_of_its_business(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen()
        caller.connect(path)
    one, other = socket.socketpair()
    with one, other:
        one.sendmsg([b"x"])
        assert other.recv(1) == b"x"


def test_a_process_that_a_test_starts_stays_here_too_and_so_does_what_it_starts() -> None:
    reach = f"import socket; socket.create_connection({AWAY}, 1)"
    start = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {reach!r}]))"
    for program in (reach, start):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 1
        assert "a test tried to reach 192.0.2.1" in done.stderr


def test_a_path_of_its_own_is_kept_beside_the_guard() -> None:
    given = guard.environment(os.pathsep.join(["/one", str(guard.HERE), "/other"]))["PYTHONPATH"]
    assert given.split(os.pathsep) == [str(guard.HERE), "/one", "/other"]


SCRIPT = f"""
curl -s http://{NAME}/; echo "curl ended with $?"
curl -s "http://$GCE_METADATA_HOST/" > /dev/null; echo "curl at home ended with $?"
{sys.executable} -c 'import socket; socket.gethostbyname("{NAME}")'
echo "all is said"
"""


def test_a_machine_of_the_small_compute_engine_stays_here_with_all_it_runs(
    tmp_path: Path,
) -> None:
    with ComputeServer(tmp_path / "gce", env={"PATH": os.environ["PATH"]}) as server:
        settings = GceSettings(project="my-project")
        provisioner = Provisioner(settings, endpoint=server.url, patience=HASTY)
        machine = provisioner.launch(order(SCRIPT))
        until(lambda: "all is said" in provisioner.serial(machine)[0])
        told = provisioner.serial(machine)[0]
    assert "curl ended with 7" in told, "it could not connect; 6 were: nobody of that name"
    assert "curl at home ended with 0" in told
    assert f"a test tried to reach {NAME}" in told
