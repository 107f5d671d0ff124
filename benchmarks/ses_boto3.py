"""`sesrelay` with one thing changed: calls to SES are made by boto3 in threads instead of by our own signer and wire.

A yardstick for `benchmarks/ses.py`; takes the arguments of `sesrelay`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config

from sesrelay.cli import main
from sesrelay.transport.ses.answers import Accepted
from sesrelay.transport.ses.attempt import Attempt

THREADS = 8  # measured: with more it gets slower
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="boto3")
_clients: dict[str, Any] = {}


def _client(url: str, key: str, secret: str) -> Any:
    if url not in _clients:
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=THREADS, tcp_keepalive=True)
        _clients[url] = boto3.client(
            "ses", "us-east-1", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret, config=config
        )
    return _clients[url]


async def _call(self: Attempt, group: tuple[str, ...]) -> Accepted:
    draft, line = self._draft, self._line
    endpoint, credentials = await line.session.endpoint(), await line.session.credentials()
    assert credentials is not None
    client = _client(endpoint.url, credentials.access_key, credentials.secret_key)

    def send() -> str:
        tags = [{"Name": name, "Value": value} for name, value in draft.tags.items()]
        answer = client.send_raw_email(Source=draft.source, Destinations=list(group), RawMessage={"Data": draft.raw}, Tags=tags)
        return str(answer["MessageId"])

    self.posted = True
    return Accepted(await asyncio.get_running_loop().run_in_executor(_threads, send))


Attempt._call = _call  # type: ignore[method-assign,assignment]

if __name__ == "__main__":
    main()
