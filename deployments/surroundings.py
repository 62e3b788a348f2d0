"""Where Prefect keeps its things and how it behaves here: quiet, at home, calling nobody."""

from __future__ import annotations

import os
import socket
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

PROJECT = Path(__file__).resolve().parents[1]
HOME = PROJECT / ".symbio" / "prefect"
OURS = "# Written by `symbio up`, removed when it stops."
PROFILE = "symbio"
"""Profile of Prefect's settings that names the server of `symbio up`."""
SILENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


def settle() -> Path:
    """Set Prefect's environment for this process and its children; return Prefect's home.

    What the person has set stays. Prefect reads its environment when it is imported, so this has to
    come first.
    """
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(HOME)))
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_SERVER_DATABASE_CONNECTION_URL", database_url(home))
    return home


def database_url(home: Path) -> str:
    """Return the address of Prefect's database in ``home``, to be used through one connection.

    Prefect takes a connection for each request, SQLite lets one of them write, and a request that
    loses is repeated two seconds later: measured, 12 to 20 s in a run of a minute. A database in
    memory gets a single connection instead, and Prefect knows one by the word in its address.
    SQLite ignores the parameter.
    """
    file = quote(str(home.resolve() / "prefect.db"))
    return f"sqlite+aiosqlite:///file:{file}?uri=true&connections=:memory:"


def remember_server(home: Path, api_url: str) -> None:
    """Write the server's address into Prefect's profile, where its command line looks for it."""
    text = f'active = "{PROFILE}"\n\n[profiles.{PROFILE}]\nPREFECT_API_URL = "{api_url}"\n'
    (home / "profiles.toml").write_text(text, encoding="utf-8")


@contextmanager
def server_found_from(folder: Path, api_url: str) -> Iterator[None]:
    """Let Prefect's own command line find the server from ``folder`` while the body runs.

    Prefect reads ``prefect.toml`` of the folder it is called in. One that a person wrote is left
    as it is; the environment always has the last word.
    """
    path = folder / "prefect.toml"
    try:
        foreign = not path.read_text(encoding="utf-8").startswith(OURS)
    except FileNotFoundError:
        foreign = False
    if foreign:
        yield
        return
    path.write_text(f'{OURS}\n[api]\nurl = "{api_url}"\n', encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_server(home: Path) -> str | None:
    """Return the address of the server that `symbio up` started, if it answers."""
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
        api_url = str(profiles["profiles"][PROFILE]["PREFECT_API_URL"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return None
    return api_url if is_healthy(api_url) else None


def is_healthy(api_url: str) -> bool:
    """Say whether a Prefect server answers at ``api_url``."""
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
