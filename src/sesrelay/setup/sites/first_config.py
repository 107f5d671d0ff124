"""The first configuration of a machine, commented, from a handful of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import yaml

from sesrelay.policy.patterns import somebody
from sesrelay.setup.sites.site import Api, Relay, transport_of

Rest = Literal["direct", "ses", "reject"]
SES = "ses-main"


@dataclass(frozen=True, slots=True)
class Answers:
    """`way` None: nothing goes by SES. `domains`: senders that do. `rest`: what becomes of everybody else's mail."""

    hostname: str
    way: Api | Relay | None = None
    domains: tuple[str, ...] = ()
    rest: Rest = "direct"
    root: str | None = None


def compose(answers: Answers) -> str:
    """Return the file."""
    rest = {"direct": "{transport: direct}", "ses": f"{{transport: {SES}}}", "reject": "{reject: true}"}[answers.rest]
    return "\n".join(
        [
            "# sesrelay: the configuration. Every key is explained in docs/configuration.md; afterwards:",
            "#     sesrelay check                     shows every mistake, with its line",
            "#     sesrelay route you@example.com     shows which route mail takes, and why",
            "#     systemctl reload sesrelay          applies it; a file with mistakes changes nothing",
            "# To add a site, in a file of its own: sesrelay site add --help",
            "",
            _noted(f"hostname: {_inline(answers.hostname)}", "the name in EHLO and Received"),
            "",
            "# Where applications submit mail. Default: port 25 on loopback.",
            '# listeners: [{listen: 127.0.0.1:25}, {listen: "[::1]:25"}]',
            "",
            "# Mail for this machine, such as cron's.",
            *_local(answers.root),
            "",
            *_transports(answers.way),
            *_routes(answers),
            "# All other senders: direct (to the recipients' MX hosts), a transport's name, or {reject: true}.",
            f"default_route: {rest}",
            "",
            *_expectations(answers),
            "# The status page, /metrics and health checks.",
            "http: {listen: 127.0.0.1:9125}",
            "",
        ]
    )


def _local(root: str | None) -> list[str]:
    if root is None:
        return ["# local: {aliases: {root: ops@example.com}}     # without an alias it is held"]
    return [_noted(f"local: {{aliases: {{root: {_inline(root)}}}}}", "postmaster follows root")]


def _transports(way: Api | Relay | None) -> list[str]:
    if way is None:
        return [
            "# transports:",
            f"#   {SES}: {{type: ses, region: us-east-1, access_key_id: AKIA…, secret_access_key_file: {SES}.secret}}",
            "",
        ]
    what = "Amazon SES, through its API" if isinstance(way, Api) else "a relay, through SMTP"
    keys = [f"    {key}: {_inline(value)}" for key, value in transport_of(way).items()]
    return ["transports:", _noted(f"  {SES}:", what), *keys, ""]


def _routes(answers: Answers) -> list[str]:
    if answers.way is None or not answers.domains:
        return [
            "# Which senders go which way; the most specific wins: address, domain, *.domain (sub-domains only).",
            "# routes: []",
            "",
        ]
    return [
        "# Which senders go which way; the most specific wins: address, domain, *.domain (sub-domains only).",
        "routes:",
        *(f"  - {{sender: {_inline(domain)}, transport: {SES}}}" for domain in answers.domains),
        "",
    ]


def _expectations(answers: Answers) -> list[str]:
    if answers.way is None or not answers.domains:
        return []
    return [
        "# `check` and each reload verify these, so that no later change reroutes a site's mail unnoticed.",
        "expect:",
        *(f"  - {{sender: {_inline(somebody(domain))}, transport: {SES}}}" for domain in answers.domains),
        "",
    ]


def _noted(line: str, note: str) -> str:
    return f"{line:<38}  # {note}"


def _inline(value: object) -> str:
    """Return a scalar as YAML, in quotes where it needs them."""
    return yaml.safe_dump(value, allow_unicode=True, width=1000, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
