from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deployments.surroundings import (
    SILENT,
    is_healthy,
    remember_server,
    running_server,
    server_found_from,
    settle,
)
from deployments.up import main


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*SILENT, "PREFECT_HOME", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return settle()


def test_prefect_stays_at_home_and_calls_nobody(home: Path) -> None:
    assert home.is_dir()
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_what_the_person_has_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    assert settle() == tmp_path
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "true"


def test_a_running_server_is_found_again_and_a_gone_one_is_not(home: Path, api_url: str) -> None:
    assert running_server(home) is None
    remember_server(home, api_url)
    assert running_server(home) == api_url
    remember_server(home, "http://127.0.0.1:9/api")
    assert running_server(home) is None


def test_an_address_without_a_prefect_is_not_healthy(api_url: str) -> None:
    assert is_healthy(api_url)
    assert not is_healthy(api_url.removesuffix("/api"))


def test_prefects_own_command_line_finds_the_server_by_its_profile(home: Path) -> None:
    remember_server(home, "http://127.0.0.1:4999/api")
    env = {k: v for k, v in os.environ.items() if k not in {"PREFECT_API_URL", "PREFECT_PROFILE"}}
    shown = subprocess.run(
        [sys.executable, "-m", "prefect", "config", "view"],
        cwd=home,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "PREFECT_API_URL='http://127.0.0.1:4999/api'" in shown.stdout


def test_a_taken_port_is_said_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"symbio up: port {port} is taken; choose another with --port\n"
    )


def test_a_second_server_is_not_started(
    home: Path, api_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    remember_server(home, api_url)
    assert main(["--port", "1"]) == 1
    assert "it runs already: http://127.0.0.1:" in capsys.readouterr().err


def test_prefects_own_commands_find_the_server_from_the_folder_while_it_runs(
    tmp_path: Path,
) -> None:
    api_url = "http://127.0.0.1:4999/api"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    with server_found_from(tmp_path, api_url):
        seen = subprocess.run(
            [sys.executable, "-m", "prefect", "config", "view"],
            cwd=tmp_path,
            env=clean | {"PREFECT_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert api_url in seen
    assert not (tmp_path / "prefect.toml").exists()


def test_a_persons_own_prefect_toml_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "prefect.toml"
    mine.write_text("# mine\n", encoding="utf-8")
    with server_found_from(tmp_path, "http://127.0.0.1:4999/api"):
        assert mine.read_text(encoding="utf-8") == "# mine\n"
    assert mine.exists()
