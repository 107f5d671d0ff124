"""A relay with a listener of each kind: plain, STARTTLS, implicit TLS, any password, login required."""

from __future__ import annotations

from typing import Any

import trustme
from argon2 import PasswordHasher

from clients.languages import Way
from relay_process import Relay

USER, PASSWORD = "shop@example.net", "c4nary of/the+shop"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
# An address of loopback for each door, so that each has a name of its own with port 0.
DOORS = {"plain": "127.0.0.1", "starttls": "127.0.0.2", "implicit": "127.0.0.3", "any": "127.0.0.4", "required": "127.0.0.5"}


class Doors(Relay):
    """A relay with a listener of each kind. `more` is what follows them."""

    def write(self, more: str) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.folder / "ca.pem")
        pair = ca.issue_cert(*DOORS.values(), "localhost")
        files = f"certificate: {self.folder}/door.pem, key: {self.folder}/door.pem"
        (self.folder / "door.pem").touch(mode=0o600)
        pair.private_key_and_cert_chain_pem.write_to_path(self.folder / "door.pem")
        super().write(more)
        listeners = f"""listeners:
  - {{listen: "{DOORS["plain"]}:0"}}
  - {{listen: "{DOORS["starttls"]}:0", tls: starttls, auth: optional, {files}}}
  - {{listen: "{DOORS["implicit"]}:0", tls: implicit, auth: optional, {files}}}
  - {{listen: "{DOORS["any"]}:0", auth: any}}
  - {{listen: "{DOORS["required"]}:0", tls: starttls, auth: required, {files}}}
"""
        frame = [line for line in self.config.read_text().splitlines() if not line.startswith("listeners:")]
        self.config.write_text("\n".join(frame) + f"\n{listeners}")

    @property
    def untrusted(self) -> Way:
        """A door that offers STARTTLS, for a client that was told neither to use it nor whom to trust."""
        return Way(*self.status["listeners"][f"{DOORS['starttls']}:0"][:2])

    def way(self, door: str, **more: Any) -> Way:
        host, port = self.status["listeners"][f"{DOORS[door]}:0"][:2]
        tls = {"starttls": "starttls", "implicit": "implicit", "required": "starttls"}.get(door, "none")
        return Way(host, port, tls, str(self.folder / "ca.pem") if tls != "none" else None, **more)
