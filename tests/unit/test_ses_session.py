"""The boto3 session: each source of credentials, renewal off the loop, the account's figures by v2 and v1."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from fakes import FakeClock
from ses_world import KEY, SECRET
from sesrelay.aws import number
from sesrelay.aws.account import Account, Reputation, summed
from sesrelay.aws.region import smtp_host
from sesrelay.aws.session import AHEAD, FrozenCredentials, Session, Sessions, Source
from sesrelay.config.values import parse_region
from sesrelay.policy.ses_hosts import region_of
from sesrelay.testing import ses_rules
from sesrelay.testing.ses import SesStandIn
from sesrelay.transport.ses.seam import AwsSession


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(FakeClock())


def keyed(url: str | None = None) -> Source:
    return Source("eu-west-1", access_key_id=KEY, secret_access_key=SECRET, endpoint_url=url)


async def test_keys_and_the_endpoint_of_the_region(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    session: AwsSession = sessions.get(keyed())
    assert await session.credentials() == FrozenCredentials(KEY, SECRET, None)
    at = await session.endpoint()
    assert (at.url, at.region, at.service, at.ca_bundle) == ("https://email.eu-west-1.amazonaws.com", "eu-west-1", "ses", None)
    assert (session.credential_id, session.region) == (KEY, "eu-west-1")


async def test_an_endpoint_of_ones_own_and_a_ca_bundle(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ours.pem")
    at = await sessions.get(keyed("http://127.0.0.1:9/x")).endpoint()
    assert (at.url, at.ca_bundle) == ("http://127.0.0.1:9/x", "/etc/ours.pem")


@pytest.mark.parametrize("said", ["", "environment", "configuration"])
async def test_the_wire_trusts_whom_botocore_trusts(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/requests.pem")
    if said == "environment":
        monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ours.pem")
    if said == "configuration":
        (tmp_path / "config").write_text("[default]\nca_bundle = /etc/ours.pem\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    session = sessions.get(keyed())
    at = await session.endpoint()
    assert session._opened is not None
    assert at.ca_bundle == session._opened.v1._endpoint.http_session._verify == ("/etc/ours.pem" if said else "/etc/requests.pem")


def test_each_partition_has_its_own_name_of_the_smtp_endpoint() -> None:
    assert smtp_host("mars-north-1") == "email-smtp.mars-north-1.amazonaws.com"
    assert smtp_host("us-gov-west-1") == "email-smtp.us-gov-west-1.amazonaws.com"
    assert smtp_host("eusc-de-east-1") == "email-smtp.eusc-de-east-1.amazonaws.eu"
    assert smtp_host("cn-north-1") == "email-smtp.cn-north-1.amazonaws.com.cn"


def test_the_smtp_endpoints_of_all_of_botocores_partitions_are_known() -> None:
    seen = 0
    for partition in botocore.session.Session().get_data("partitions")["partitions"]:
        for region in (name for name in partition["regions"] if re.fullmatch(partition["regionRegex"], name)):
            for domain in (partition["outputs"]["dnsSuffix"], partition["outputs"]["dualStackDnsSuffix"]):
                assert region_of(f"email-smtp.{region}.{domain}") == parse_region(region) == region
                seen += 1
    assert seen > 60


@pytest.mark.parametrize(
    ("rate", "quota", "sandbox"), [(1.0, 200.0, True), (1.0, 50_000.0, None), (14.0, 200.0, None), (1.0, -1.0, None)]
)
async def test_where_v2_is_not_to_be_had_the_figures_tell_the_sandbox(
    sessions: Sessions, rate: float, quota: float, sandbox: bool | None
) -> None:
    account = ses_rules.Account(region="eu-west-1", rate=rate, quota=quota, sandbox=bool(sandbox))
    async with SesStandIn(keys={KEY: SECRET}, account=account, v2=False) as ses:
        assert (await sessions.get(keyed(ses.url)).account()).sandbox is sandbox


@pytest.mark.parametrize(
    ("source", "url", "v2_url", "region_set"),
    [
        ({"fips": True}, "https://email-fips.us-east-1.amazonaws.com", "https://email-fips.us-east-1.amazonaws.com", None),
        ({"dual_stack": True}, "https://email.us-east-1.api.aws", "https://email.us-east-1.api.aws", None),
        ({"endpoint_id": "a.b"}, "https://email.us-east-1.amazonaws.com", "https://a.b.endpoints.email.amazonaws.com", "*"),
        ({"endpoint_id": "a.b", "dual_stack": True}, "https://email.us-east-1.api.aws", "https://a.b.endpoints.email.global.api.aws", "*"),
        ({"endpoint_id": "a.b", "endpoint_url": "http://127.0.0.1:9"}, "http://127.0.0.1:9", "http://127.0.0.1:9", "*"),
    ],
)  # fmt: skip
async def test_endpoints_are_botocores(
    sessions: Sessions, source: dict[str, Any], url: str, v2_url: str, region_set: str | None
) -> None:
    at = await sessions.get(Source("us-east-1", access_key_id=KEY, secret_access_key=SECRET, **source)).endpoint()
    assert (at.url, at.v2_url, at.region_set) == (url, v2_url, region_set)


async def test_fips_of_the_environment_is_followed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert (await sessions.get(keyed()).endpoint()).url == "https://email-fips.eu-west-1.amazonaws.com"


@pytest.fixture
def handed_out() -> Iterator[tuple[str, dict[str, Any]]]:
    """Serve a document at every path on loopback, as the places that hand out credentials do."""
    document: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = "relay" if self.path.endswith("security-credentials/") else json.dumps(document)
            self.answer(body)

        def do_PUT(self) -> None:
            self.answer("a-token")

        def answer(self, body: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", document
    server.shutdown()
    server.server_close()


def temporary(**more: str) -> dict[str, str]:
    later = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"AccessKeyId": "ASIAHANDED", "SecretAccessKey": "s", "Token": "t", "Expiration": later, **more}


async def test_a_containers_credentials(
    sessions: Sessions, handed_out: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, document = handed_out
    document.update(temporary())
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/creds")
    assert await sessions.get(Source("eu-west-1")).credentials() == FrozenCredentials("ASIAHANDED", "s", "t")


async def test_an_instances_credentials(
    sessions: Sessions, handed_out: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, document = handed_out
    document.update(temporary(Code="Success", AccountId="123456789012"))
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    assert await sessions.get(Source("eu-west-1")).credentials() == FrozenCredentials("ASIAHANDED", "s", "t")


async def test_credentials_of_sso(
    sessions: Sessions, handed_out: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, document = handed_out
    expires = int((datetime.now(UTC) + timedelta(hours=6)).timestamp() * 1000)
    document["roleCredentials"] = {"accessKeyId": "ASIASSO", "secretAccessKey": "s", "sessionToken": "t", "expiration": expires}
    config = tmp_path / "config"
    config.write_text(
        "[profile mail]\nsso_session = ours\nsso_account_id = 123456789012\nsso_role_name = Relay\n"
        "[sso-session ours]\nsso_region = eu-west-1\nsso_start_url = https://ours.awsapps.com/start\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    token = {"accessToken": "a", "expiresAt": temporary()["Expiration"], "startUrl": "https://ours.awsapps.com/start"}
    (cache / f"{sha1(b'ours').hexdigest()}.json").write_text(json.dumps(token))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(cache))
    monkeypatch.setattr("botocore.tokens.SSOTokenProvider._SSO_TOKEN_CACHE_DIR", str(cache), raising=False)
    session = sessions.get(Source("eu-west-1", profile="mail"))
    assert await session.credentials() == FrozenCredentials("ASIASSO", "s", "t")
    assert await session.account_id() == "123456789012"


async def test_the_account_is_known_without_asking(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await sessions.get(Source("eu-west-1", role_arn="arn:aws:iam::123456789012:role/relay")).account_id() == "123456789012"
    told = Source("eu-west-1", access_key_id="ASIAQNZGKIQY56JQ7WML", secret_access_key="s")
    assert await sessions.get(told).account_id() == "029608264753"
    for earlier in ("AKIAIOSFODNN7EXAMPLE", "AKIASTANDIN", "", "AKIA0000000000000000"):
        assert number.of_key(earlier) is None
    assert number.of_arn("arn:aws-us-gov:iam::210987654321:role/x") == "210987654321"
    assert number.of_arn("arn:aws:ses:us-east-1:123456789012:identity/x") is None


def test_of_the_statistics_the_last_24_hours_count() -> None:
    now = datetime(2027, 1, 2, 12, tzinfo=UTC)
    points = [
        {"Timestamp": now - timedelta(hours=hours), "DeliveryAttempts": 100, "Bounces": 5, "Complaints": 1, "Rejects": 2}
        for hours in (0.25, 23.9, 24.1, 300)
    ]
    assert summed([*points, {}], now) == Reputation(200, 10, 2, 4)
    assert summed([], now) == Reputation()


async def test_the_reputation_is_asked_by_v1() -> None:
    sessions = Sessions(FakeClock(now=time.time()))
    account = ses_rules.Account(statistics={"DeliveryAttempts": 1000, "Bounces": 60, "Complaints": 2, "Rejects": 1})
    async with SesStandIn(account=account) as ses:
        assert await sessions.get(keyed(ses.url)).reputation() == Reputation(1000, 60, 2, 1)


async def test_a_profile(sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text("[blog]\naws_access_key_id = AKIABLOG\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    session = sessions.get(Source("eu-west-1", profile="blog"))
    assert await session.credentials() == FrozenCredentials("AKIABLOG", "s", None)
    assert session.credential_id == "blog"
    with pytest.raises(Exception, match="missing"):
        await sessions.get(Source("eu-west-1", profile="missing")).credentials()


async def test_the_chain_and_a_reload(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sessions.get(Source("eu-west-1"))
    assert session.credential_id == "default"
    assert await session.credentials() is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "one")
    assert await session.credentials() == FrozenCredentials("AKIAENV", "one", None)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    assert await session.credentials() == FrozenCredentials("AKIAENV", "one", None)
    await session.reload()
    assert await session.credentials() == FrozenCredentials("AKIAENV", "two", None)


@pytest.mark.parametrize("blank", ["\n", "\r\n", " "])
async def test_blanks_around_keys_are_none_of_theirs(sessions: Sessions, blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sessions.get(Source("eu-west-1", access_key_id=f"{KEY}{blank}", secret_access_key=f"{SECRET}{blank}"))
    assert await given.credentials() == FrozenCredentials(KEY, SECRET, None)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    for name, value in zip(names, (KEY, SECRET, "token"), strict=True):
        monkeypatch.setenv(name, f" {value}{blank}")
    async with SesStandIn(keys={KEY: SECRET}, account=ses_rules.Account("eu-west-1", rate=21.0)) as ses:
        chain = sessions.get(Source("eu-west-1", endpoint_url=ses.url))
        assert await chain.credentials() == FrozenCredentials(KEY, SECRET, "token")
        assert (await chain.account()).max_send_rate == 21.0


async def test_a_role(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{host}:{port}")
        arn = "arn:aws:iam::123456789012:role/mail"
        session = sessions.get(replace(keyed(), role_arn=arn, external_id="external-1"))
        given = await session.credentials()
    finally:
        server.stop()
    assert given is not None
    assert given.access_key not in ("", KEY)
    assert given.token
    assert session.credential_id == arn
    for secret in (given.secret_key, given.token, SECRET):
        assert secret not in repr((given, session, session.source))


async def test_one_session_a_source(sessions: Sessions) -> None:
    assert sessions.get(keyed()) is sessions.get(keyed())
    assert sessions.get(keyed()) is not sessions.get(replace(keyed(), secret_access_key="another"))
    session = sessions.get(keyed())
    first, second = await asyncio.gather(session.endpoint(), session.endpoint())
    assert first is second
    other = sessions.get(Source("eu-west-1"))
    sessions.retain([keyed()])
    assert sessions.get(keyed()) is session
    assert sessions.get(Source("eu-west-1")) is not other


@dataclass
class Temporary:
    """What botocore's refreshable credentials show of themselves."""

    left: float
    thread: int = 0
    asked: int = 0

    def refresh_needed(self, refresh_in: float) -> bool:
        return self.left < refresh_in

    def get_frozen_credentials(self) -> FrozenCredentials:
        self.thread, self.asked = threading.get_ident(), self.asked + 1
        return FrozenCredentials("ASIA", f"s{self.asked}", "t")


async def test_temporary_credentials_are_renewed_ahead_and_off_the_loop() -> None:
    clock = FakeClock()
    sessions = Sessions(clock)
    session = sessions.get(keyed())
    await session.endpoint()
    assert isinstance(session, Session)
    assert session._opened is not None
    temporary = Temporary(3600.0)
    session._opened = replace(session._opened, credentials=temporary)
    first = await session.credentials()
    assert first is not None
    assert first.secret_key == "s1"
    assert temporary.thread != threading.get_ident()
    temporary.left = AHEAD - 1
    clock.advance(10)
    assert await session.credentials() is first  # still good: nobody waits
    while temporary.asked == 1:
        await asyncio.sleep(0.01)
    temporary.left = 10
    clock.advance(10)
    latest = await session.credentials()  # about to end: waited for
    assert latest is not None
    assert latest.secret_key == "s3"


@dataclass
class Silent(Temporary):
    """Answers when it is `let`, and then with an error if it has one."""

    error: Exception | None = None
    let: threading.Event = field(default_factory=threading.Event)

    def get_frozen_credentials(self) -> FrozenCredentials:
        found = super().get_frozen_credentials()
        self.let.wait(30)
        if self.error is not None:
            raise self.error
        return found


async def test_a_source_that_does_not_answer_is_asked_once_and_holds_up_no_other(sessions: Sessions) -> None:
    slow, other = sessions.get(keyed()), sessions.get(replace(keyed(), region="eu-west-2"))
    await slow.endpoint()
    assert slow._opened is not None
    silent = Silent(0.0, error=OSError("no answer"))
    slow._opened = replace(slow._opened, credentials=silent)
    asking = [asyncio.create_task(slow.credentials()) for _ in range(8)]
    try:
        async with asyncio.timeout(20):
            assert await other.credentials() == FrozenCredentials(KEY, SECRET, None)
    finally:
        silent.let.set()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(end) for end in ends] == ["no answer"] * 8
    assert silent.asked == 1
    with pytest.raises(OSError, match="no answer"):
        await slow.credentials()
    assert silent.asked == 2  # and then it is asked again


async def test_a_source_that_never_answers_is_given_up_and_read_anew(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = sessions.get(keyed())
    await session.endpoint()
    assert session._opened is not None
    silent = Silent(0.0)
    session._opened = replace(session._opened, credentials=silent)
    monkeypatch.setattr("sesrelay.aws.session.PATIENCE", 0.2)
    ends = await asyncio.gather(*(session.credentials() for _ in range(8)), return_exceptions=True)
    monkeypatch.undo()
    assert {type(end) for end in ends} == {TimeoutError}
    assert "credential_process" in str(ends[0])
    assert silent.asked == 1
    assert await session.credentials() == FrozenCredentials(KEY, SECRET, None)
    silent.let.set()


def test_a_program_that_hangs_holds_up_no_end(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile p]\nregion = us-east-1\ncredential_process = sh -c 'echo $$ > pid; exec sleep 600'\n"
    )
    script = """
import asyncio
from sesrelay.app.clock import SystemClock
from sesrelay.aws import session
session.PATIENCE = 5.0
async def ask():
    one = session.Sessions(SystemClock()).get(session.Source("us-east-1", profile="p"))
    print(await asyncio.gather(*(one.credentials() for _ in range(3)), one.account(), return_exceptions=True))
asyncio.run(ask())
"""
    environ = {**os.environ, "AWS_CONFIG_FILE": str(tmp_path / "config")}
    try:
        # Into a file: the program would hold a pipe open.
        with (tmp_path / "out").open("w") as out:
            ended = subprocess.run([sys.executable, "-c", script], check=False, cwd=tmp_path, env=environ, stdout=out, timeout=90)
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert ended.returncode == 0
    assert (tmp_path / "out").read_text().count("TimeoutError('no answer within 5 seconds") == 4


async def test_what_a_source_gave_before_it_was_read_anew_is_not_kept(sessions: Sessions) -> None:
    session = sessions.get(keyed())
    await session.endpoint()
    assert session._opened is not None
    silent = Silent(0.0)
    session._opened = replace(session._opened, credentials=silent)
    asking = asyncio.create_task(session.credentials())
    while not silent.asked:
        await asyncio.sleep(0.01)
    await session.reload()
    assert await session.credentials() == FrozenCredentials(KEY, SECRET, None)
    silent.let.set()
    await asking
    assert await session.credentials() == FrozenCredentials(KEY, SECRET, None)


@pytest.mark.parametrize("v2", [True, False])
async def test_the_account_is_asked_by_v2_then_v1(sessions: Sessions, v2: bool) -> None:
    account = ses_rules.Account("eu-west-1", rate=21.0, quota=-1.0, sent=3.0)
    async with SesStandIn(keys={KEY: SECRET}, account=account, v2=v2) as ses:
        found = await sessions.get(keyed(ses.url)).account()
    assert found == Account(21.0, -1.0, 3.0, False if v2 else None)
    assert (ses.requests["GetAccount"], ses.requests["GetSendQuota"]) == (1, 0 if v2 else 1)


async def test_an_account_that_refuses_is_asked_once_by_each(sessions: Sessions) -> None:
    async with SesStandIn(keys={}) as ses:
        with pytest.raises(Exception, match="InvalidClientTokenId"):
            await sessions.get(keyed(ses.url)).account()
    assert ses.requests["GetAccount"] == 1


def test_boto3_is_not_imported_with_the_room() -> None:
    code = (
        "import sys, sesrelay.aws.session, sesrelay.aws.account, sesrelay.transport.ses.transport as t;"
        "sys.exit(any(m.split('.')[0] in ('boto3', 'botocore') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
