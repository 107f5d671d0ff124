"""A local stand-in for what sesrelay calls of Cloudflare's API: zones, records, and a batch that is done as a whole or not at all.

Source: Cloudflare API v4, "List Zones", "List DNS Records", "Batch DNS Records".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Refused(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Cloudflare:
    token: str = "cf-token-canary"
    zones: dict[str, str] = field(default_factory=lambda: {"z1": "example.com"})
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    redirect: str | None = None
    port: int = 0
    made: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/client/v4"

    def add(self, kind: str, name: str, content: str, **more: Any) -> str:
        """Put a record there, as somebody else did, in the form that the service gives it back."""
        self.made += 1
        one = f"r{self.made}"
        self.records[one] = {"id": one, "type": kind, "name": name, "content": content, "ttl": 1, "proxied": False, **more}
        return one

    def has(self, kind: str, name: str) -> list[str]:
        return [one["content"] for one in self.records.values() if (one["type"], one["name"]) == (kind, name)]

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Any:
        parts = urlsplit(target)
        path, query = parts.path.removeprefix("/client/v4"), {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.calls.append(f"{method} {path}")
        if headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(403, 9109, "Invalid access token")
        match method, path.strip("/").split("/"):
            case "GET", ["zones"]:
                return [{"id": one, "name": name} for one, name in self.zones.items() if name == query.get("name")]
            case "GET", ["zones", "z1", "dns_records"]:
                return [one for one in self.records.values() if one["name"] == query.get("name")]
            case "POST", ["zones", "z1", "dns_records", "batch"]:
                return self._batch(json.loads(body))
        raise Refused(404, 7003, f"Could not route to {path}")

    def _batch(self, wanted: dict[str, Any]) -> Any:
        after, made = dict(self.records), []
        for gone in wanted.get("deletes", ()):
            if after.pop(gone["id"], None) is None:
                raise Refused(404, 81044, "Record does not exist.")
        for new in wanted.get("posts", ()):
            self._check(new, after)
            self.made += 1
            made.append({**new, "id": f"r{self.made}"})
            after[f"r{self.made}"] = made[-1]
        self.records = after
        return {"deletes": wanted.get("deletes", []), "posts": made, "puts": [], "patches": []}

    def _check(self, new: dict[str, Any], there: dict[str, dict[str, Any]]) -> None:
        if not new["name"].endswith("example.com") or not new["content"] or new["ttl"] not in (1, *range(60, 86401)):
            raise Refused(400, 1004, "DNS Validation Error")
        if new["type"] == "MX" and not isinstance(new.get("priority"), int):
            raise Refused(400, 9101, "priority is a required field.")
        if new["type"] == "TXT" and not (new["content"].startswith('"') and new["content"].endswith('"')):
            raise Refused(400, 9106, "TXT content is to be in quotes.")
        same = [one for one in there.values() if one["name"] == new["name"]]
        if any("CNAME" in (one["type"], new["type"]) for one in same):
            raise Refused(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        if any((one["type"], one["content"]) == (new["type"], new["content"]) for one in same):
            raise Refused(400, 81058, "An identical record already exists.")


@contextmanager
def cloudflare() -> Iterator[Cloudflare]:
    service = Cloudflare()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if service.redirect:
                self.send_response(302)
                self.send_header("Location", service.redirect)
                self.end_headers()
                return
            try:
                status, answer = (
                    200,
                    {"success": True, "errors": [], "result": service.answer(self.command, self.path, self.headers, body)},
                )
            except Refused as refused:
                errors = [{"code": refused.code, "message": refused.message}]
                status, answer = refused.status, {"success": False, "errors": errors, "result": None}
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = _serve

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
