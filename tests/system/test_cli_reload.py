"""`sesrelay reload`, which is also what systemd calls: it ends as the reload did."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from relay_process import Relay, wait_for

MORE = "transports: {nowhere: {type: discard}}\ndefault_route: {transport: nowhere}"
BROKEN = f"{MORE}\nnonsense: 1"


def test_it_ends_as_the_reload_did(tmp_path: Path) -> None:
    with Relay(tmp_path, MORE) as relay:
        relay.write(f"{MORE}\nroutes: [{{sender: example.com, transport: nowhere, name: new}}]")
        done = relay.run("reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "the running relay now uses this configuration\n", "")
        assert [event["ok"] for event in relay.events("reloaded")] == [True, True], "when it ends, the reload has ended"
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            relay.config.write_text(relay.config.read_text().replace('listen: "127.0.0.1:0"}]', f'listen: "{taken}"}}]', 1))
            done = relay.run("reload")
            assert (done.returncode, done.stdout) == (1, "")
            assert f"keeps its old configuration: {taken}" in done.stderr
        relay.write(BROKEN)
        done = relay.run("reload")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"sesrelay: the running relay keeps its old configuration: {relay.config}:")
        assert "nonsense: unknown key" in done.stderr
        assert relay.events("reloaded")[-1]["ok"] is False
        relay.write(MORE)
        assert relay.run("reload").returncode == 0
        assert relay.stop() == 0
    done = relay.run("reload")
    assert (done.returncode, done.stdout, done.stderr) == (69, "", "sesrelay: no relay is running\n")


def test_what_cannot_be_asked_is_signalled_where_systemd_names_it(tmp_path: Path) -> None:
    with Relay(tmp_path, MORE) as relay:
        assert relay.process is not None
        relay.env["MAINPID"] = str(relay.process.pid)
        relay.config.write_text(relay.config.read_text() + "\ncontrol: elsewhere\nnonsense: 1\n")
        done = relay.run("reload")
        assert (done.returncode, "nonsense: unknown key" in done.stderr) == (78, True)
        told = wait_for("the daemon sees it too", lambda: relay.events("reloaded")[1:])
        assert (told[0]["ok"], "nonsense: unknown key" in told[0]["detail"]) == (False, True)
        assert b"\nsesrelay_config_reload_success 0.0\n" in relay.get("/metrics")
        relay.write(MORE)
        os.unlink(relay.control)
        done = relay.run("reload")
        assert (done.returncode, done.stdout) == (0, "")
        assert "SIGHUP was sent" in done.stderr
        wait_for("the socket is there again", relay.control.exists)
        assert relay.run("reload").returncode == 0
