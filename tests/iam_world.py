"""moto's IAM beside an SES that takes the keys of that IAM and no others, for tests of access keys that come and go."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.iam.models import iam_backends
from moto.route53.models import route53_backends
from moto.server import ThreadedMotoServer

from aws_world import AwsWorld, Said, aws_world

ACCOUNT = "123456789012"
USER = "sesrelay-relay.example.net"


class KeysOfIam(Mapping[str, str]):
    """The active access keys of moto's IAM; one that is new is not known for `settling` requests."""

    def __init__(self) -> None:
        self.settling = 0
        self.asked: Counter[str] = Counter()

    def _active(self) -> dict[str, str]:
        users = iam_backends[ACCOUNT]["aws"].users.values()
        return {key.access_key_id: key.secret_access_key for user in users for key in user.access_keys if key.status == "Active"}

    def __contains__(self, key: object) -> bool:
        self.asked[str(key)] += 1
        return key in self._active() and self.asked[str(key)] > self.settling

    def __getitem__(self, key: str) -> str:
        return self._active()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._active())

    def __len__(self) -> int:
        return len(self._active())


class IamWorld:
    def __init__(self, world: AwsWorld, keys: KeysOfIam, iam: Any) -> None:
        self.world, self.keys, self.iam = world, keys, iam
        self.folder = world.config.parent

    def run(self, *args: str | Path) -> Said:
        return self.world.run("credentials", *args)

    def administrator(self, *args: str) -> Said:
        """Run with a profile, as the configuration's own key may not manage IAM."""
        file = self.folder.parent / f"{self.folder.name}.aws"
        file.write_text("[admin]\naws_access_key_id = AKIAADMINISTRATOR000\naws_secret_access_key = admin-canary\n")
        before = os.environ["AWS_SHARED_CREDENTIALS_FILE"]
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
        try:
            return self.run(*args, "--profile", "admin")
        finally:
            os.environ["AWS_SHARED_CREDENTIALS_FILE"] = before

    def ids(self, user: str = USER) -> list[str]:
        return sorted(one["AccessKeyId"] for one in self.iam.list_access_keys(UserName=user)["AccessKeyMetadata"])

    def text(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def use_keys(self) -> None:
        """Let the configuration name the key that was created, as `create` says."""
        more = f"access_key_id: {self.text('main.access-key-id')}, secret_access_key_file: main.secret"
        text = self.world.config.read_text().replace("type: ses,", f"type: ses, {more},")
        self.world.config.write_text(text)


@contextmanager
def moto_server() -> Iterator[str]:
    """Serve moto on loopback; yield its URL. What other tests of this process have left in Route 53 is gone."""
    route53_backends[ACCOUNT]["aws"].reset()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def iam_world(folder: Path, moto: str, monkeypatch: pytest.MonkeyPatch, more: str = "") -> Iterator[IamWorld]:
    """Yield the world, with boto3's own chain for an administrator. `more`: further lines of the configuration."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAADMINISTRATOR000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "admin-canary")
    iam_backends[ACCOUNT]["aws"].reset()
    keys = KeysOfIam()
    iam = boto3.client("iam", endpoint_url=moto, region_name="us-east-1")
    for world in aws_world(folder, more):
        text = world.config.read_text()
        start = text.index(", access_key_id")
        world.config.write_text(text[:start] + text[text.index("}", start) :])  # boto3's own chain: the administrator
        world.ses.keys, world.ses.account.verified = keys, frozenset({"example.com"})
        yield IamWorld(world, keys, iam)
