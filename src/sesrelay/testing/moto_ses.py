"""moto's SES as a server: an account out of the sandbox, for the demo and as a second opinion in tests.

moto holds every sender to be unverified and an account to be in the sandbox; here it speaks for a production account
that has verified every domain, so that a newcomer's first message arrives whoever it is from.
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from typing import Any

DAILY, RATE = 50_000, 100  # what a young production account may have: recipients in 24 h, and a second


class NotInstalled(Exception):
    """moto is not there; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One message as the stand-in took it."""

    id: str
    source: str
    destinations: tuple[str, ...]
    raw: str


class MotoSes:
    """Serves SES (v1, and of v2 what moto has) on loopback, in threads of its own."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._server: Any = None

    def start(self) -> str:
        """Listen and return the URL. Raises: NotInstalled, OSError where the port is taken."""
        try:
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415
            from moto.ses.models import SESBackend  # noqa: PLC0415 - half a second, and an extra
            from werkzeug.serving import make_server  # noqa: PLC0415
        except ImportError as error:
            raise NotInstalled("the demo needs moto: pip install 'sesrelay[demo]'") from error
        with socket.socket() as probe:  # werkzeug answers a taken port by ending the process
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", self._port))
        SESBackend._is_verified_address = lambda self, source: True  # type: ignore[method-assign]
        SESBackend.get_send_quota = _production_quota  # type: ignore[method-assign,assignment]
        app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", self._port, app, threaded=True, request_handler=_quiet())
        threading.Thread(target=self._server.serve_forever, daemon=True, name="moto").start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def taken(self) -> list[Taken]:
        """Return what was taken, oldest first, in every region."""
        from moto.ses.models import ses_backends  # noqa: PLC0415

        return [
            Taken(str(one.id), str(one.source), tuple(one.destinations), str(one.raw_data))
            for account in list(ses_backends.values())
            for backend in list(account.values())
            for one in list(backend.sent_messages)
            if hasattr(one, "raw_data")
        ]


def _production_quota(backend: Any) -> Any:
    from moto.ses.models import SESQuota  # noqa: PLC0415

    quota = SESQuota(backend.sent_message_count)
    quota.max24_hour_send, quota.max_send_rate = DAILY, RATE
    return quota


def _quiet() -> Any:
    """Return moto's request handler without its access log."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler  # noqa: PLC0415

    return type("Quiet", (MotoRequestHandler,), {"log": lambda self, kind, message, *args: None})
