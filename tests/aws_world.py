"""What tests of the verbs about AWS share: stand-ins in a thread of their own, and the command run within this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import threading
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader

from ses_world import KEY, SECRET
from sesrelay.cli import main
from sesrelay.testing.ses import SesStandIn
from small_dns import SmallDns

# Every verb makes a session of its own, which reads megabytes of JSON about the services: one reading is enough for all tests.
_read = functools.cache(functools.partial(JSONFileLoader._load_file, JSONFileLoader()))
JSONFileLoader._load_file = lambda self, path, opened: _read(path, opened)  # type: ignore[method-assign]


@dataclass
class Said:
    """What a verb said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def sesrelay(*args: str | Path, stdin: str = "") -> Said:
    """Run a verb in this process, with no terminal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        import sys

        before, sys.stdin = sys.stdin, io.StringIO(stdin)
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1 if left.code else 0
        finally:
            sys.stdin = before
    return Said(code, out.getvalue(), err.getvalue())


class Elsewhere:
    """A loop in a thread, for servers that a blocking test talks to."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class AwsWorld:
    """SES and a DNS on loopback, and a configuration that leads example.com to that SES."""

    ses: SesStandIn
    dns: SmallDns
    config: Path

    def look_up(self, name: str, kind: str) -> Iterable[str]:
        return [text.strip('"').rstrip(".") for text in self.dns.records.get((name, kind), [])]

    def publish(self, records: Iterable[dict[str, Any]]) -> None:
        """Put records, as the verbs print them, into the DNS."""
        for one in records:
            value = '"' + one["value"] + '"' if one["type"] == "TXT" else one["value"] + "."
            self.dns.records.setdefault((one["name"], one["type"]), []).append(value)

    def run(self, *args: str | Path, stdin: str = "") -> Said:
        return sesrelay(*args, "--config", self.config, stdin=stdin)

    def domain(self, verb: str, *args: str | Path, name: str = "example.com") -> Said:
        return self.run("domain", verb, name, "--nameserver", self.dns.nameserver, *args)


def aws_world(folder: Path, more: str = "") -> Iterator[AwsWorld]:
    """Yield the world; `more`: further lines of the configuration."""
    elsewhere = Elsewhere()
    dns = SmallDns(records={("example.com", "NS"): ["ns.example.com."]})
    ses = SesStandIn(keys={KEY: SECRET})
    ses.account.verified = frozenset()
    elsewhere.do(dns.__aenter__())
    elsewhere.do(ses.start())
    config = folder / "config.yaml"
    config.write_text(
        f"hostname: relay.example.net\nstate_dir: {folder}/state\n"
        "transports:\n"
        f"  main: {{type: ses, region: us-east-1, endpoint_url: '{ses.url}', access_key_id: {KEY}, secret_access_key: '{SECRET}'}}\n"
        "routes:\n  - {sender: example.com, transport: main}\n" + more
    )
    config.chmod(0o640)
    world = AwsWorld(ses, dns, config)
    ses.identities.look_up = world.look_up
    try:
        yield world
    finally:
        elsewhere.do(ses.stop())
        elsewhere.do(dns.__aexit__())
        elsewhere.close()
