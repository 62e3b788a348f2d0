"""A small Cloud Storage on this machine, for Google's own client to talk to over HTTP.

`python -m tests.cloud.storage_server --port 9200 --bucket runs` runs it by itself; `--folder` keeps
what it holds for the next start. POST to `/_control/faults|buckets|rate`, GET `/_control/calls`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlparse

from tests.cloud.storage_faults import Faults, Rule
from tests.cloud.storage_world import BLOCK, Rejected, Stored, World

OBJECT = r"(?P<bucket>[^/]+)/o/(?P<name>[^/]+)"
ROUTES = [
    ("GET", r"/storage/v1/b/(?P<bucket>[^/]+)", "get_bucket"),
    ("POST", r"/storage/v1/b", "insert_bucket"),
    ("GET", r"/storage/v1/b/(?P<bucket>[^/]+)/o", "list_objects"),
    ("GET", rf"/(?:download/)?storage/v1/b/{OBJECT}", "get_object"),
    ("PATCH", rf"/storage/v1/b/{OBJECT}", "patch_object"),
    ("DELETE", rf"/storage/v1/b/{OBJECT}", "delete_object"),
    ("POST", r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o", "upload"),
    ("PUT", r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o", "chunk"),
    ("DELETE", r"/(?:resumable/)?upload/storage/v1/b/(?P<bucket>[^/]+)/o", "cancel"),
    ("POST", r"/_control/(?P<what>faults|buckets|rate)", "control"),
    ("GET", r"/_control/calls", "told_calls"),
]


@dataclass(frozen=True)
class Call:
    """One request as it was answered."""

    method: str
    path: str
    """With its query, unquoted."""
    status: int | None
    """None where no answer was sent."""
    fault: str | None
    n_bytes: int
    """Length of the request's body."""


@dataclass
class Reply:
    """What a request is answered with."""

    status: int
    body: bytes
    headers: dict[str, str]
    is_media: bool = False


def as_json(content: Any, status: int = 200, **headers: str) -> Reply:
    body = json.dumps(content).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=UTF-8", **headers})


class StorageServer:
    """The service on a port of the loopback address; a context manager."""

    def __init__(
        self,
        *,
        port: int = 0,
        folder: Path | None = None,
        writes_per_s: float | None = None,
        seed: int = 0,
    ) -> None:
        self.world = World(folder, writes_per_s)
        self.faults = Faults(seed)
        self.calls: list[Call] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        """Called with each request before it is looked at; tests race through it."""
        handler = type("Bound", (Handler,), {"server_of": self})
        self._http = Listener(("127.0.0.1", port), handler)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def url_of(self, writer: str) -> str:
        """Return the address for one writer, whose faults are then its own."""
        return f"{self.url}/writer-{writer}" if writer else self.url

    def start(self) -> StorageServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def pause(self, seconds: float) -> None:
        """Stall, unless the server is being stopped."""
        self._stopping.wait(seconds)

    def count(self, method: str = ".*", path: str = "") -> int:
        """Say how many calls of this kind came in."""
        return sum(
            bool(re.fullmatch(method, call.method) and re.search(path, call.path))
            for call in list(self.calls)
        )

    def __enter__(self) -> StorageServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()


class Listener(ThreadingHTTPServer):
    """Closes connections without a goodbye first, so that a reset is one."""

    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server_of: StorageServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        """Say nothing; calls are in the log."""

    # --- one request, with what may break on its way

    def _answer(self) -> None:
        server = self.server_of
        self.writer, self.path = _writer_of(self.path)
        self.params = dict(parse_qsl(urlparse(self.path).query))
        shown = unquote(self.path)
        server.before(self.command, shown)
        fault = None
        if not shown.startswith("/_control"):
            fault = server.faults.draw(self.command, shown, self._possible(), self.writer)
        length = int(self.headers.get("Content-Length") or 0)

        def log(status: int | None) -> None:
            server.calls.append(Call(self.command, shown, status, fault, length))

        with contextlib.suppress(ConnectionError, TimeoutError):
            reply = self._broken(fault, length)
            # Logged before it is sent: whoever has the answer finds the call in the log.
            log(reply.status if reply else None)
            if reply is not None:
                self._send(reply, fault)

    def _possible(self) -> set[str]:
        is_upload = self.command in ("POST", "PUT") and "/upload/" in self.path
        if self.params.get("alt") == "media":
            return {"reset_before", "lost_reply", "reset_mid", "corrupt_down", "truncate"}
        if is_upload and self._has_content():
            return {"reset_before", "lost_reply", "reset_mid", "corrupt_up"}
        return {"reset_before", "lost_reply"}

    def _has_content(self) -> bool:
        is_start = self.command == "POST" and self.params.get("uploadType") == "resumable"
        return not is_start and "*/" not in (self.headers.get("Content-Range") or "")

    def _broken(self, fault: str | None, length: int) -> Reply | None:
        if fault == "reset_before":
            return self._reset()
        is_upload = "/upload/" in self.path
        if fault == "reset_mid" and is_upload:
            self._store_half(self.rfile.read(length // 2))
            return self._reset()
        self.body = self.rfile.read(length)
        if fault == "corrupt_up":
            self.body = _flipped_content(self.command, self.body)
        if fault is not None and fault.startswith("stall:"):
            self.server_of.pause(float(fault.partition(":")[2]))
        if fault is not None and fault.isdigit():
            reply = _error(Rejected(int(fault), "injected", f"An injected {fault}."))
        else:
            reply = self._reply()
        return self._reset() if fault == "lost_reply" else reply

    def _reset(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            # Linger 0: the client sees a reset and not a polite end.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _send(self, reply: Reply, fault: str | None) -> None:
        body = reply.body
        if fault == "corrupt_down" and reply.is_media and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault in ("truncate", "reset_mid") and reply.is_media:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            if fault == "reset_mid":
                self._reset()
            return
        self.wfile.write(body)
        self.wfile.flush()

    def _reply(self) -> Reply:
        try:
            for method, pattern, name in ROUTES:
                found = re.fullmatch(pattern, urlparse(self.path).path)
                if method == self.command and found:
                    parts = {key: unquote(value) for key, value in found.groupdict().items()}
                    reply: Reply = getattr(self, f"_{name}")(**parts)
                    return reply
            raise Rejected(501, "notImplemented", f"No {self.command} {self.path} here.")
        except Rejected as error:
            return _error(error)

    # --- buckets and objects

    @property
    def _world(self) -> World:
        return self.server_of.world

    def _get_bucket(self, bucket: str) -> Reply:
        found = self._world.bucket(bucket, "bucket")
        about = {"kind": "storage#bucket", "id": bucket, "name": bucket, "metageneration": "1"}
        return as_json(about | {"location": found.location, "storageClass": "STANDARD"})

    def _insert_bucket(self) -> Reply:
        wanted = json.loads(self.body)
        if wanted["name"] in self._world.buckets:
            raise Rejected(409, "conflict", "The requested bucket name is not available.")
        self._world.add_bucket(wanted["name"], wanted.get("location", "US"))
        return self._get_bucket(wanted["name"])

    def _list_objects(self, bucket: str) -> Reply:
        return as_json(self._world.listed(bucket, self.params))

    def _get_object(self, bucket: str, name: str) -> Reply:
        found = self._world.get(bucket, name, self.params)
        if self.params.get("alt") != "media":
            return as_json(found.resource(bucket))
        sums = found.checksums
        headers = {
            "Content-Type": found.content_type,
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Metageneration": str(found.metageneration),
            "X-Goog-Hash": f"crc32c={sums['crc32c']},md5={sums['md5Hash']}",
            "X-Goog-Stored-Content-Length": str(len(found.data)),
            "X-Goog-Stored-Content-Encoding": found.content_encoding or "identity",
            "ETag": f'"{found.generation}/{found.metageneration}"',
        }
        headers |= {"Content-Encoding": "gzip"} if found.content_encoding else {}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span is None:
            return Reply(200, found.data, headers, is_media=True)
        first, size = int(span[1]), len(found.data)
        last = min(int(span[2] or size - 1), size - 1)
        if first > last:
            raise Rejected(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Reply(206, found.data[first : last + 1], headers, is_media=True)

    def _patch_object(self, bucket: str, name: str) -> Reply:
        changed = self._world.patch(bucket, name, self.params, json.loads(self.body))
        return as_json(changed.resource(bucket))

    def _delete_object(self, bucket: str, name: str) -> Reply:
        self._world.delete(bucket, name, self.params)
        return Reply(204, b"", {})

    # --- uploads

    def _upload(self, bucket: str) -> Reply:
        match self.params.get("uploadType"):
            case "multipart":
                resource, data = _parts(self.headers.get("Content-Type", ""), self.body)
                return self._told(bucket, self._world.put(bucket, self.params, resource, data))
            case "media":
                kind = {"contentType": self.headers.get("Content-Type")}
                return self._told(bucket, self._world.put(bucket, self.params, kind, self.body))
            case "resumable":
                resource = json.loads(self.body or b"{}")
                resource.setdefault("contentType", self.headers.get("X-Upload-Content-Type"))
                upload = self._world.begin(bucket, self.params, resource)
                here = self.server_of.url_of(self.writer) + urlparse(self.path).path
                where = f"{here}?uploadType=resumable&upload_id={upload}"
                return Reply(200, b"", {"Location": where, "X-GUploader-UploadID": upload})
        raise Rejected(400, "invalid", "Unknown uploadType.")

    def _chunk(self, bucket: str) -> Reply:
        with self._world.lock:
            session = self._world.sessions.get(self.params.get("upload_id", ""))
            if session is None:
                raise Rejected(404, "notFound", "The upload session does not exist.")
            if session.done is not None:
                return self._told(bucket, session.done)
            total = self._take(self.body)
            if total is None or len(session.data) < total:
                return Reply(308, b"", _progress(len(session.data)))
            sums = dict(
                part.split("=", 1)
                for part in (self.headers.get("X-Goog-Hash") or "").split(",")
                if "=" in part
            )
            resource = {"crc32c": sums["crc32c"]} if "crc32c" in sums else {}
            resource |= {"md5Hash": sums["md5"]} if "md5" in sums else {}
            resource |= session.resource
            try:
                stored = self._world.put(bucket, session.params, resource, bytes(session.data))
            except Rejected as error:
                if error.status != 429:
                    del self._world.sessions[self.params["upload_id"]]
                raise
            session.done = stored
            session.data = bytearray()
            return self._told(bucket, stored)

    def _take(self, data: bytes) -> int | None:
        """Add what is new of a chunk to its session; return the upload's length if it is told."""
        session = self._world.sessions[self.params["upload_id"]]
        span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers["Content-Range"])
        if span is None:
            raise Rejected(400, "invalid", "Invalid Content-Range.")
        total = None if span[3] == "*" else int(span[3])
        if span[1] is None:
            return total
        first, size = int(span[1]), int(span[2]) + 1 - int(span[1])
        if first > len(session.data):
            raise Rejected(503, "backendError", "A chunk before this one is missing.")
        if total is None and size % BLOCK:
            raise Rejected(400, "invalid", f"Chunks must be multiples of {BLOCK} bytes.")
        session.data += data[len(session.data) - first :]
        return total

    def _store_half(self, data: bytes) -> None:
        """Keep the whole blocks of a chunk whose connection broke, as the service does."""
        session = self._world.sessions.get(self.params.get("upload_id", ""))
        if self.command == "PUT" and session is not None and session.done is None:
            with self._world.lock:
                self._take(data[: len(data) // BLOCK * BLOCK])

    def _cancel(self, bucket: str) -> Reply:
        self._world.sessions.pop(self.params.get("upload_id", ""), None)
        return Reply(499, b"", {})

    def _told(self, bucket: str, stored: Stored) -> Reply:
        return as_json(stored.resource(bucket))

    # --- control from another process

    def _control(self, what: str) -> Reply:
        server, wanted = self.server_of, json.loads(self.body or b"{}")
        if what == "faults":
            server.faults.clear()
            server.faults.seed(wanted.get("seed", 0))
            server.faults.add(*(Rule(**rule) for rule in wanted.get("rules", ())))
        elif what == "buckets":
            denied = set(wanted.get("denied", ()))
            self._world.add_bucket(wanted["name"], wanted.get("location", "US-CENTRAL1"), denied)
        else:
            self._world.writes_per_s = wanted.get("writes_per_s")
        return as_json({})

    def _told_calls(self) -> Reply:
        calls = [asdict(call) for call in list(self.server_of.calls)]
        return as_json({"calls": calls, "injected": dict(self.server_of.faults.injected)})


def _writer_of(path: str) -> tuple[str, str]:
    """Split the address of a writer into its name and what it asks for."""
    found = re.match(r"/writer-(\w+)(/.*)", path)
    return (found[1], found[2]) if found else ("", path)


def _progress(n_bytes: int) -> dict[str, str]:
    return {"Range": f"bytes=0-{n_bytes - 1}"} if n_bytes else {}


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a multipart upload into the object's description and its content."""
    found = re.search(r'boundary="?([^";]+)', content_type)
    if found is None:
        raise Rejected(400, "invalid", "Missing boundary.")
    mark = b"--" + found[1].encode()
    try:
        _, about, rest = body.split(mark + b"\r\n", 2)
        content, end = rest.rsplit(b"\r\n" + mark, 1)
        resource = json.loads(about.split(b"\r\n\r\n", 1)[1])
        head, data = content.split(b"\r\n\r\n", 1)
    except ValueError as error:
        raise Rejected(400, "badContent", f"Bad multipart body: {error}") from error
    if not end.startswith(b"--"):
        raise Rejected(400, "badContent", "The multipart body does not end.")
    kind = re.search(rb"content-type: *([^\r\n]+)", head, re.IGNORECASE)
    if kind is not None:
        resource.setdefault("contentType", kind[1].decode())
    return resource, data


def _flipped_content(command: str, body: bytes) -> bytes:
    """Flip one bit of what is uploaded, and none of the envelope around it."""
    at = 0
    if command == "POST" and body.startswith(b"--"):
        at = body.index(b"\r\n\r\n", body.index(b"\r\n\r\n") + 4) + 4
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] if body else body


def _error(error: Rejected) -> Reply:
    if error.status == 304:
        return Reply(304, b"", {})
    one = {"message": error.message, "domain": "global", "reason": error.reason}
    about = {"code": error.status, "message": error.message, "errors": [one]}
    return as_json({"error": about}, error.status)


def main() -> None:
    """Serve until the process is stopped; the first line printed is the address."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bucket", action="append", default=[])
    parser.add_argument("--writes-per-s", type=float)
    options = parser.parse_args()
    server = StorageServer(
        port=options.port, folder=options.folder, writes_per_s=options.writes_per_s
    )
    for name in options.bucket:
        server.world.add_bucket(name)
    with server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
