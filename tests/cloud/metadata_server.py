"""The metadata server of one machine: attributes, tokens, and the notice that it is taken back."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

ROOT = "/computeMetadata/v1/"


class MetadataServer:
    """Answers what metadata.google.internal would, for one machine."""

    def __init__(self, tree: dict[str, Any]):
        self.tree = tree
        self.changed = threading.Condition()
        self.is_open = True
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = _Http(("127.0.0.1", 0), handler)
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.http.server_address[1]}"

    def set(self, path: str, value: Any) -> None:
        """Change a value and wake those who wait for a change."""
        with self.changed:
            *folders, leaf = path.split("/")
            here = self.tree
            for folder in folders:
                here = here[folder]
            here[leaf] = value
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.is_open = False
            self.changed.notify_all()
        self.http.shutdown()
        self.http.server_close()

    def look(self, path: str) -> Any:
        here: Any = self.tree
        for part in path.strip("/").split("/") if path.strip("/") else ():
            if not isinstance(here, dict) or part not in here:
                return None
            here = here[part]
        return here

    def wait(self, path: str, last_etag: str | None, timeout_s: float) -> Any:
        """Return the value once it differs from the one that the caller knows, or at the end."""
        until = time.monotonic() + timeout_s
        with self.changed:
            known = last_etag or etag(self.look(path))
            while self.is_open and etag(self.look(path)) == known and time.monotonic() < until:
                self.changed.wait(until - time.monotonic())
            return self.look(path)


def etag(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who asks may be killed while waiting."""


class _Handler(BaseHTTPRequestHandler):
    owner: MetadataServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        url = urlparse(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if self.headers.get("Metadata-Flavor") != "Google":
            return self.answer(403, "Missing Metadata-Flavor:Google header.", "text/html")
        if not url.path.startswith(ROOT):
            return self.answer(200, "computeMetadata/\n", "application/text")
        path = url.path.removeprefix(ROOT)
        if query.get("wait_for_change", "").lower() == "true":
            last, timeout_s = query.get("last_etag"), float(query.get("timeout_sec", 600))
            value = self.owner.wait(path, last, timeout_s)
        else:
            value = self.owner.look(path)
        if value is None:
            return self.answer(404, "Not Found", "text/html")
        if not isinstance(value, dict):
            return self.answer(200, str(value), "application/text", etag(value))
        is_token = path.rstrip("/").endswith("token")
        if is_token or query.get("recursive", "").lower() == "true":
            return self.answer(200, json.dumps(value), "application/json", etag(value))
        names = [f"{name}/" if isinstance(inner, dict) else name for name, inner in value.items()]
        return self.answer(200, "\n".join(names), "application/text", etag(value))

    def answer(self, status: int, text: str, kind: str, tag: str = "0") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
