"""DKIM by the real process: keys from `dkim generate`, a new one taken up by SIGHUP, a bad one refused by it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import dkim

from batches import eventually
from relay_process import Relay, wait_for
from scripted_host import ScriptedHost

MESSAGE = b"From: App <app@example.org>\r\nTo: you@example.net\r\nSubject: hello\r\n\r\nHello.\r\n"


def generate(relay: Relay, selector: str, kind: str) -> bytes:
    done = relay.run("dkim", "generate", "example.org", "--selector", selector, "--type", kind, "--json")
    return str(json.loads(done.stdout)["records"][0]["value"]).encode()


def configuration(host: ScriptedHost, dkim: str) -> str:
    return (
        f"transports: {{out: {{type: smtp, host: 127.0.0.1, port: {host.port}, dkim: {{example.org: {dkim}}}}}}}\n"
        "default_route: {transport: out}"
    )


async def test_keys_are_reloaded_and_bad_ones_refused(tmp_path: Path) -> None:
    async with ScriptedHost() as host:
        relay = Relay(tmp_path, "{}")
        records = {b"old": generate(relay, "old", "rsa"), b"new": generate(relay, "new", "ed25519")}

        def verified(index: int) -> str:
            content = host.messages[index].content
            (selector,) = (name for name in records if b" s=" + name + b";" in content)
            assert dkim.verify(content, dnsfunc=lambda name, timeout=5: records[name.partition(b".")[0]])
            return selector.decode()

        async def send(count: int) -> None:
            await asyncio.to_thread(relay.submit, "app@example.org", "you@example.net", MESSAGE)
            await eventually(lambda: len(host.messages) == count, 20)

        def reload() -> bool:
            before = len(relay.events("reloaded"))
            assert relay.process is not None
            relay.process.send_signal(signal.SIGHUP)
            wait_for("the reload", lambda: len(relay.events("reloaded")) > before)
            return bool(relay.events("reloaded")[-1]["ok"])

        relay.write(configuration(host, "{selector: old, key_file: old.example.org.pem}"))
        await asyncio.to_thread(relay.start)
        try:
            await send(1)
            assert verified(0) == "old"
            relay.write(configuration(host, "{selector: new, key_file: new.example.org.pem}"))
            assert await asyncio.to_thread(reload)
            await send(2)
            assert verified(1) == "new"
            (tmp_path / "new.example.org.pem").write_text("no key")
            assert not await asyncio.to_thread(reload)
            assert "new.example.org.pem holds no private key" in str(relay.events("reloaded")[-1])
            await send(3)
            assert verified(2) == "new"
        finally:
            await asyncio.to_thread(relay.stop)
