"""Good configurations: what their values become, defaults, site files, files that others name."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml

from sesrelay.config import machine
from sesrelay.config.loading import Loaded, load
from sesrelay.config.model import Config, Listener
from sesrelay.config.problem import ConfigError
from sesrelay.config.transports import DirectTransport, SesTransport, SmtpTransport
from sesrelay.config.values import HostPort
from sesrelay.mail.delivery import Priority
from sesrelay.transport.exchangers.resolver import resolver


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o640)
    return file


def loaded(folder: Path, text: str, environ: dict[str, str] | None = None) -> Loaded:
    return load(write(folder, text), environ=environ or {})


def lines(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("text", ["{}", "", "# nothing\n", "---\n", "null\n", "access:\nqueue:\nroutes:\n", "\ufeff{}"])
def test_nothing_is_a_configuration(text: str, tmp_path: Path) -> None:
    result = loaded(tmp_path, text)
    config = result.config
    assert config.state_dir == Path("/var/lib/sesrelay")
    assert config.listeners[0].address == HostPort("127.0.0.1", 25)
    assert config.access.networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert isinstance(config.transports["direct"], DirectTransport)
    assert config.queue.retry == (30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    assert (config.queue.max_age, config.queue.delay_warning, config.limits.message_size) == (259200.0, 14400.0, 26214400)
    assert result.routing.route("a@b.example").transports == ("direct",)
    assert result.local.domain == config.hostname != "localhost"


def test_values_take_their_units(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "limits: {message_size: 1.5 MiB, min_free_disk: 10MB, command_timeout: 90}\n"
        "queue: {retry: [1s, 0.5m], max_age: 2d, delay_warning: off, keep_delivered: 0s}\n"
        "transports: {s: {type: ses, rate: 14.5}, t: {type: ses}}\n",
    ).config
    assert (config.limits.message_size, config.limits.min_free_disk, config.limits.command_timeout) == (1572864, 10_000_000, 90.0)
    assert (config.queue.retry, config.queue.max_age, config.queue.delay_warning) == ((1.0, 30.0), 172800.0, None)
    rates = [t.rate for t in config.transports.values() if isinstance(t, SesTransport)]
    assert rates == [14.5, None]


def test_a_relay_without_a_password_tries_tls_and_one_with_it_insists(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "transports:\n"
        "  plain: {type: smtp, host: relay.example}\n"
        "  login: {type: smtp, hosts: [a.example, '::1'], username: u, password: p}\n"
        "  implicit: {type: smtp, host: a.example, tls: implicit}\n"
        "  lax: {type: smtp, host: a.example, tls: none, port: 26, username: u, password: p}\n"
        "  token: {type: smtp, host: a.example, username: u, token: t}\n"
        "  named: {type: smtp, host: a.example, tls_name: b.example}\n"
        f"  printed: {{type: smtp, host: a.example, tls_fingerprints: 'SHA256 Fingerprint={':'.join(['aB'] * 32)}'}}\n",
    ).config
    found = {n: (t.tls, t.port, t.relays) for n, t in config.transports.items() if isinstance(t, SmtpTransport)}
    assert found == {
        "plain": ("opportunistic", 25, ("relay.example",)),
        "login": ("required", 587, ("a.example", "::1")),
        "implicit": ("implicit", 465, ("a.example",)),
        "lax": ("none", 26, ("a.example",)),
        "token": ("required", 587, ("a.example",)),
        "named": ("required", 25, ("a.example",)),
        "printed": ("required", 25, ("a.example",)),
    }
    printed = config.transports["printed"]
    assert isinstance(printed, SmtpTransport)
    assert printed.tls_fingerprints == ("ab" * 32,)


def test_routes_become_rules_with_their_lines(tmp_path: Path) -> None:
    result = loaded(
        tmp_path,
        "transports: {park: {type: hold}}\n"
        "routes:\n"
        "  - sender:\n"
        "      - example.com\n"
        "      - '*.example.com'\n"
        "    transport: [park, direct]\n"
        "    priority: high\n"
        "  - {sender: boss@example.com, reject: true, name: boss}\n"
        "null_sender_route: {transport: park}\n",
    )
    file = tmp_path / "config.yaml"
    table = result.routing
    rule = table.route("x@deep.example.com")
    assert (rule.pattern, rule.source, rule.name, rule.transports, rule.priority) == (
        "*.example.com", f"{file}:5", "example.com", ("park", "direct"), Priority.HIGH,
    )  # fmt: skip
    boss = table.route("Boss@EXAMPLE.com")
    assert (boss.reject, boss.name, boss.source) == (True, "boss", f"{file}:8")
    assert (table.route("").name, table.route("").source) == ("null", f"{file}:9")
    assert (table.route("a@other.example").name, table.route("a@other.example").source) == ("default", "")


def test_local_mail_is_routed_by_its_header_from(tmp_path: Path) -> None:
    result = loaded(
        tmp_path,
        "hostname: host.example\nlocal: {domain: corp.example, aliases: {Root: ops@corp.example}}\n"
        "transports: {park: {type: hold}}\nroutes: [{sender: site.example, transport: park}]\n",
    )
    for sender in ("www-data@host.example", "www-data@corp.example", ""):
        assert result.routing.route(sender, ["shop@site.example"]).pattern == "site.example"
    assert result.local.aliases == {"root": "ops@corp.example"}


def test_expectations_that_are_met(tmp_path: Path) -> None:
    loaded(
        tmp_path,
        "transports: {park: {type: hold}}\n"
        "routes: [{sender: a.example, transport: [park, direct]}, {sender: b.example, reject: true}]\n"
        "expect:\n"
        "  - {sender: x@a.example, to: y@c.example, transport: park}\n"
        "  - {sender: x@a.example, transport: [park, direct]}\n"
        "  - {sender: x@b.example, reject: true}\n"
        "  - {sender: <>, transport: direct}\n",
    )


def test_variables_are_put_in(tmp_path: Path) -> None:
    result = loaded(
        tmp_path,
        "hostname: ${HOST}.example\nlimits: {recipients: '${N}'}\nlocal: {aliases: {root: '$${HOST}@a.example'}}\n",
        {"HOST": "mx", "N": "7"},
    )
    assert (result.config.hostname, result.config.limits.recipients) == ("mx.example", 7)
    assert result.local.aliases["root"] == "${HOST}@a.example"


def test_anchors_and_merged_mappings(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "transports:\n  a: &base {type: smtp, host: a.example, port: 26}\n  b: &b {<<: *base, host: b.example}\n"
        "  c: {<<: *b, tls: none}\n",
    ).config
    found = [(t.host, t.port, t.tls) for t in config.transports.values() if isinstance(t, SmtpTransport)]
    assert found == [("a.example", 26, "opportunistic"), ("b.example", 26, "opportunistic"), ("b.example", 26, "none")]


def test_names_may_be_words_that_yaml_reads_otherwise(tmp_path: Path) -> None:
    config = loaded(tmp_path, "transports: {on: {type: hold}}\ndefault_route: {transport: 'on'}\n").config
    assert config.default_route.transports == ("on",)


def test_relative_paths_start_at_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path, "transports: {r: {type: smtp, host: h.example, ca_file: ca.pem}}\n", "sites.d/a.yaml")
    config = loaded(tmp_path, "state_dir: state\n").config
    assert config.state_dir == tmp_path / "state"
    relay = config.transports["r"]
    assert isinstance(relay, SmtpTransport) and relay.ca_file == tmp_path / "sites.d" / "ca.pem"


def test_the_control_socket_is_in_state_dir_where_run_has_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesrelay.config.loading.RUN_DIR", tmp_path / "none")
    assert loaded(tmp_path, f"state_dir: {tmp_path}/s\n").config.control == tmp_path / "s" / "control.sock"
    assert loaded(tmp_path, "control: c.sock\n").config.control == tmp_path / "c.sock"
    monkeypatch.setattr("sesrelay.config.loading.RUN_DIR", tmp_path)
    assert loaded(tmp_path, "{}").config.control == Path("/run/sesrelay/control.sock")


def test_a_listener_beyond_loopback_wants_a_network(tmp_path: Path) -> None:
    config = loaded(tmp_path, "listeners: [{listen: '[2001:db8::1]:0'}]\naccess: {networks: [2001:db8::/32, 192.0.2.7]}\n").config
    assert config.listeners == (Listener(listen="[2001:db8::1]:0"),)
    assert config.listeners[0].address == HostPort("2001:db8::1", 0)


@pytest.mark.parametrize(
    ("named", "there", "passed_over"),
    [
        (["127.0.0.1:25", "[::1]:25"], ["127.0.0.1:25"], ("[::1]:25",)),
        (["[::1]:25", "unix:/x.sock", "[0:0::1]:26"], ["unix:/x.sock"], ("[::1]:25", "[0:0::1]:26")),
        (["[::1]:25"], ["[::1]:25"], ()),  # the start then says what is wrong: nothing would take mail
        (["127.0.0.1:25", "[2001:db8::1]:25"], ["127.0.0.1:25", "[2001:db8::1]:25"], ()),  # somebody counts on it
    ],
)
def test_a_machine_without_ipv6_does_without_its_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: list[str], there: list[str], passed_over: tuple[str, ...]
) -> None:
    text = f"listeners: {[{'listen': each} for each in named]}\naccess: {{networks: ['2001:db8::/32']}}\n"
    monkeypatch.setattr("sesrelay.config.loading.has_ipv6", lambda: True)
    found = loaded(tmp_path, text)
    assert ([one.listen for one in found.config.listeners], found.passed_over) == (named, ())
    monkeypatch.setattr("sesrelay.config.loading.has_ipv6", lambda: False)
    found = loaded(tmp_path, text)
    assert ([one.listen for one in found.config.listeners], found.passed_over) == (there, passed_over)


@pytest.mark.parametrize(
    ("trouble", "there"),
    [(errno.EAFNOSUPPORT, False), (errno.EADDRNOTAVAIL, False), (errno.EMFILE, True), (errno.ENFILE, True), (errno.ENOBUFS, True)],
)
def test_want_of_descriptors_or_memory_is_not_taken_for_want_of_ipv6(
    monkeypatch: pytest.MonkeyPatch, trouble: int, there: bool
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(trouble, "no socket")

    monkeypatch.setattr(socket, "socket", none_left)
    assert machine.has_ipv6() is there


@pytest.mark.parametrize("shipped", ["packaging/deb/config.yaml", "packaging/container/config.yaml", "config.example.yaml"])
def test_localhost_is_listened_on_by_either_of_its_addresses(shipped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesrelay.config.loading.has_ipv6", lambda: True)
    found = loaded(tmp_path, (Path(__file__).parents[2] / shipped).read_text(encoding="utf-8")).config
    ports = {one.address.port for one in found.listeners if not one.listen.startswith("unix:")}
    hosts = {one.address.host for one in found.listeners if not one.listen.startswith("unix:")}
    assert len(ports) == 1
    assert "::1" in hosts
    assert hosts & {"127.0.0.1", "0.0.0.0"}


def test_direct_with_nameservers(tmp_path: Path) -> None:
    direct = loaded(
        tmp_path,
        "transports: {direct: {type: direct, port: 2525, nameservers: ['127.0.0.1:5353', '::1', '[::1]:54', 192.0.2.1, localhost:53], "
        "allow_private_addresses: true}}\n",
    ).config.transports["direct"]
    assert isinstance(direct, DirectTransport)
    assert direct.nameservers == ("127.0.0.1:5353", "::1", "[::1]:54", "192.0.2.1", "127.0.0.1:53")
    assert resolver(direct.nameservers, 1.0).nameservers  # what is read there is taken here
    assert direct.allow_private_addresses is True


# --- site files -----------------------------------------------------------------------------------------------------


def test_site_files_are_appended_in_byte_order(tmp_path: Path) -> None:
    site = "transports: {%s: {type: hold}}\nroutes: [{sender: %s.example, transport: %s}]\n"
    for name in ("b", "a", "Z"):
        write(tmp_path, site % (name, name, name), f"sites.d/{name}.yaml")
    write(tmp_path, "nonsense: [", "sites.d/.hidden.yaml")
    write(tmp_path, "nonsense: [", "sites.d/a.yaml~")
    write(tmp_path, "access: {networks: [192.0.2.0/24]}\n", "sites.d/net.yaml")
    result = loaded(tmp_path, "routes: [{sender: main.example, transport: direct}]\n")
    names = ["config.yaml", "sites.d/Z.yaml", "sites.d/a.yaml", "sites.d/b.yaml", "sites.d/net.yaml"]
    assert result.files == tuple(tmp_path / name for name in names)
    assert [rule.pattern for rule in result.routing.rules] == ["main.example", "Z.example", "a.example", "b.example"]
    assert result.routing.rules[2].source == f"{tmp_path}/sites.d/a.yaml:2"
    assert [str(network) for network in result.config.access.networks] == ["127.0.0.0/8", "::1/128", "192.0.2.0/24"]


@pytest.mark.parametrize("make", [lambda d: None, lambda d: d.mkdir()], ids=["missing", "empty"])
def test_a_missing_or_empty_folder_does_no_harm(make: object, tmp_path: Path) -> None:
    make(tmp_path / "sites.d")  # type: ignore[operator]
    assert loaded(tmp_path, "{}").files == (tmp_path / "config.yaml",)


def test_what_stands_twice_is_reported_with_both_places(tmp_path: Path) -> None:
    main = write(tmp_path, "transports: {a: {type: hold}}\nroutes:\n  - {sender: a.example, transport: a}\n")
    site = write(tmp_path, "transports: {a: {type: discard}}\nroutes:\n  - {sender: [A.EXAMPLE], transport: a}\n", "sites.d/s.yaml")
    assert lines(main) == [
        f"{site}:1:14: transports.a: is defined twice (first at {main}:1:14)",
        f"{site}:3:15: routes[1].sender[0]: 'A.EXAMPLE' is defined twice (first at {main}:3:14)",
    ]


def senders(folder: Path) -> dict[str, tuple[str, ...]]:
    return load(folder / "config.yaml").config.access.local_users


def test_one_local_user_may_have_several_sites(tmp_path: Path) -> None:
    write(tmp_path, "access: {local_users: {www-data: main.example, '33': [number.example]}}\n")
    write(tmp_path, "access: {local_users: {www-data: [a.example, '*.a.example'], other: o.example}}\n", "sites.d/a.yaml")
    write(tmp_path, "access: {local_users: {www-data: b.example}}\n", "sites.d/b.yaml")
    assert senders(tmp_path) == {
        "www-data": ("main.example", "a.example", "*.a.example", "b.example"),
        "33": ("number.example",),
        "other": ("o.example",),
    }


HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA"


def test_no_two_files_claim_one_pattern(tmp_path: Path) -> None:
    main = write(tmp_path, "access:\n  local_users: {a: [m.example, both.example], b: [both.example]}\n")
    one = write(tmp_path, "access: {local_users: {a: [x.example], b: [M.EXAMPLE.]}}\n", "sites.d/1.yaml")
    two = write(
        tmp_path,
        f"access:\n  users: [{{name: u, password_hash: '{HASH}', senders: [x.example]}}]\n  local_users: {{a: '*.x.example'}}\n",
        "sites.d/2.yaml",
    )
    two.chmod(0o600)
    three = write(tmp_path, "access: {local_users: {a: '*.X.example'}}\n", "sites.d/3.yaml")
    shared = "; users that share it must be in one file)"
    at = two.read_text().splitlines()[1].index("x.example") + 1
    assert lines(main) == [
        f"{one}:1:44: access.local_users.b[1]: 'M.EXAMPLE.' is defined twice (first at {main}:2:21{shared}",
        f"{two}:2:{at}: access.users[0].senders[0]: 'x.example' is defined twice (first at {one}:1:28{shared}",
        f"{three}:1:27: access.local_users.a[4]: '*.X.example' is defined twice (first at {two}:3:20{shared}",
    ]


def test_a_unix_socket_starts_at_the_file_that_names_it(tmp_path: Path) -> None:
    result = loaded(tmp_path, "listeners: [{listen: 'unix:submit.sock'}, {listen: 'unix:/run/x.sock'}]\n")
    assert [listener.listen for listener in result.config.listeners] == [f"unix:{tmp_path}/submit.sock", "unix:/run/x.sock"]


def test_a_site_file_holds_a_sites_keys_only(tmp_path: Path) -> None:
    main = write(tmp_path, "{}")
    site = write(tmp_path, "hostname: a.example\nroute: []\nroutes: {}\n", "sites.d/s.yaml")
    assert lines(main) == [
        f"{site}:1:1: hostname: allowed in the main file only (a site file may hold transports, routes, access, expect, feedback)",
        f"{site}:2:1: route: unknown key (did you mean routes?)",
        f"{site}:3:1: routes: must be a list",
    ]


def test_a_broken_site_is_one_problem_and_hides_no_other(tmp_path: Path) -> None:
    main = write(tmp_path, "hostnam: x\nroutes: [{sender: a.example, transport: from-site}]\n")
    site = write(tmp_path, "transports: [\n", "sites.d/s.yaml")
    found = lines(main)
    assert [line.split(": ")[0] for line in found] == [f"{main}:1:1", f"{site}:2:1"]


def test_problems_in_a_site_file_name_its_line(tmp_path: Path) -> None:
    main = write(tmp_path, "routes: [{sender: a.example, transport: direct}]\n")
    site = write(tmp_path, "routes:\n  - {sender: b.example, transport: direkt}\n", "sites.d/s.yaml")
    assert lines(main) == [f"{site}:2:36: routes[1].transport: there is no transport 'direkt' (did you mean direct?)"]


def test_hundreds_of_sites(tmp_path: Path) -> None:
    for number in range(300):
        name = f"s{number:03}"
        text = f"transports: {{{name}: {{type: ses, region: us-east-1}}}}\nroutes:\n  - {{sender: {name}.example, transport: {name}}}\n"
        write(tmp_path, text, f"sites.d/{name}.yaml")
    result = loaded(tmp_path, "{}")
    assert result.routing.route("a@s299.example").transports == ("s299",)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_the_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().hostname = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("short", "canonical", "expected"),
    [
        ("mail.example.com", "other.example", "mail.example.com"),
        ("mail", "mail.example.com", "mail.example.com"),
        ("mail", "localhost.localdomain", "mail"),
        ("localhost", "localhost", machine.NAMELESS),
        ("my_host!", "", machine.NAMELESS),
    ],
)
def test_the_machine_is_never_called_localhost(short: str, canonical: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.socket, "gethostname", lambda: short)
    monkeypatch.setattr(machine, "_canonical", lambda name: canonical)
    assert machine.machine_name.__wrapped__() == expected


def test_the_slow_parser_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(tmp_path, "transports: {park: {type: hold}}\nroutes:\n  - {sender: a.example, transport: park}\n")
    bad = write(tmp_path, "log: {}\nlog: {levle: no}\nx: *y\n", "bad.yaml")
    fast = load(good, environ={}).routing.rules, lines(bad)
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert (load(good, environ={}).routing.rules, lines(bad)) == fast
    assert len(lines(write(tmp_path, "[" * 2000, "deep.yaml"))) == 1


def test_who_may_not_read_the_configuration_is_told_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, opening = write(tmp_path, "{}"), os.open

    def refused(path: Path, *args: int) -> int:
        if path == config:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opening(path, *args)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ConfigError, match=r"cannot be read: Permission denied \(run this as root, or as a member of its group\)"):
        load(config)
