"""Bad configurations and the exact line that each must get."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sesrelay.config.loading import load
from sesrelay.config.problem import ConfigError
from sesrelay.config.transports import SesTransport

_NO_URL = "must be a URL, as in https://email.us-east-1.amazonaws.com"
_BARE_URL = "must be a URL without a user, ? and #, as in https://email.us-east-1.amazonaws.com"

# name: (file, the problems without the file's path)
BAD: dict[str, tuple[str, list[str]]] = {
    "unknown key": ("hostnam: a.example\n", ["1:1: hostnam: unknown key (did you mean hostname?)"]),
    "unknown key, nothing near": (
        "log: {zzz: 1}\n",
        ["1:7: log.zzz: unknown key (known here: format, level)"],
    ),
    "unknown key of one type": (
        "transports: {a: {type: smtp, host: h, regoin: x}}\n",
        [
            "1:39: transports.a.regoin: unknown key (known here: type, host, hosts, port, tls, ca_file, tls_name, "
            "tls_fingerprints, username, password, password_file, token, token_file, rewrite_sender, nameservers, source_address, "
            "dkim, "
            "rate, share, daily_reserve, tariff, preflight, rewrite_from, identities_from, failover_after)"
        ],
    ),
    "a fingerprint that is none": (
        "transports: {a: {type: smtp, host: h, tls_fingerprints: 12:3F}}\n",
        [
            "1:57: transports.a.tls_fingerprints: must be the SHA-256 of a certificate (64 hexadecimal digits; openssl x509 -noout "
            "-fingerprint -sha256)"
        ],
    ),
    "a link-local address of no interface": (
        "listeners: [{listen: '[fe80::1]:25'}]\n",
        ['1:22: listeners[0].listen: a link-local address needs its interface, as in "[fe80::1%eth0]:25"'],
    ),
    "a name for nothing": (
        "transports: {a: {type: smtp, host: h, tls: opportunistic, tls_name: x.example}}\n",
        ["1:69: transports.a.tls_name: has no effect with tls: opportunistic (use required or implicit)"],
    ),
    "what is for SES, at another relay": (
        "transports: {a: {type: smtp, host: h, rewrite_from: a@b.example}}\n",
        ["1:53: transports.a.rewrite_from: has no effect: the relay is not SES (email-smtp.REGION.amazonaws.com)"],
    ),
    "nobody to list identities": (
        "transports: {a: {type: smtp, host: email-smtp.eu-west-1.amazonaws.com, preflight: true}}\n",
        [
            "1:83: transports.a.preflight: SMTP credentials cannot list identities (set identities_from to a transport of type "
            "ses of the same "
            "account and region; rewrite_from does not need it)"
        ],
    ),
    "identities of nobody": (
        "transports: {a: {type: smtp, host: email-smtp.eu-west-1.amazonaws.com, identities_from: b}, c: {type: ses, region: "
        "eu-west-1}}\n",
        ["1:89: transports.a.identities_from: there is no transport 'b' (known here: c)"],
    ),
    "identities of another type": (
        "transports: {a: {type: smtp, host: email-smtp.eu-west-1.amazonaws.com, identities_from: b}, b: {type: hold}}\n",
        ["1:89: transports.a.identities_from: 'b' is of type hold, not ses (none is defined here)"],
    ),
    "identities of another region": (
        "transports: {a: {type: smtp, host: email-smtp.eu-west-1.amazonaws.com, identities_from: b}, b: {type: ses, region: "
        "eu-west-2}}\n",
        ["1:89: transports.a.identities_from: 'b' is in eu-west-2 (use a transport of type ses in eu-west-1)"],
    ),
    "families that are none": (
        "transports: {a: {type: direct, address_families: [ipv5]}}\n",
        ["1:51: transports.a.address_families[0]: must be ipv4 or ipv6, not 'ipv5' (did you mean ipv6?)"],
    ),
    "duplicate key": (
        "log: {}\nqueue: {}\nlog: {}\n",
        ["3:1: log: is defined twice (first at FILE:1:1)"],
    ),
    "aliases that differ in case, or in quotes": (
        "local:\n  aliases:\n    Foo: a@b.example\n    foo: c@d.example\n    '\"FOO\"': e@f.example\n",
        [
            "4:5: local.aliases.foo: is the same name as 'Foo' (at FILE:3:5): upper and lower case and unnecessary quotes make no "
            "difference",
            "5:5: local.aliases.\"FOO\": is the same name as 'Foo' (at FILE:3:5): upper and lower case and unnecessary quotes "
            "make no difference",
        ],
    ),
    "aliases in a circle": (
        "hostname: h.example\nlocal:\n  domain: l.example\n  aliases:\n    a: B@l.example\n    B: a@h.example\n    c: a@l.example\n"
        "    root: postmaster@l.example\n    postmaster: root@l.example\n    me: me@l.example\n",
        [
            "5:5: local.aliases.a: forms a loop with 'B' (at FILE:6:5): none of them leads to a mailbox",
            "8:5: local.aliases.root: forms a loop with 'postmaster' (at FILE:9:5): none of them leads to a mailbox",
        ],
    ),
    "duplicate nested key": (
        "transports:\n  a: {type: hold}\n  a: {type: discard}\n",
        ["3:3: transports.a: is defined twice (first at FILE:2:3)"],
    ),
    "not a mapping": ("- a\n", ["1:1: yaml: must be a mapping (`key: value` lines; {} for all defaults)"]),
    "list for a mapping": ("limits: [1]\n", ["1:1: limits: must be a mapping"]),
    "text for a list": ("routes: a\n", ["1:9: routes: must be a list"]),
    "norway as a name": (
        "routes: [{sender: a.example, name: no, transport: direct}]\n",
        ["1:36: routes[0].name: YAML reads an unquoted no as false (must be text; put text in quotes)"],
    ),
    "norway as a sender": (
        "routes: [{sender: [no], transport: direct}]\n",
        ["1:20: routes[0].sender[0]: YAML reads an unquoted no as false (must be text; put text in quotes)"],
    ),
    "off as one of several": (
        "listeners: [{listen: '127.0.0.1:25', tls: off}]\n",
        ["1:43: listeners[0].tls: YAML reads an unquoted off as false (must be none, starttls or implicit; put text in quotes)"],
    ),
    "base 60": (
        "queue: {max_age: 1:30}\n",
        [
            "1:18: queue.max_age: YAML reads an unquoted 1:30 as the number 90 (base 60) (put it in quotes, or write a plain "
            "decimal number)"
        ],
    ),
    "base 60 as an address": (
        "listeners:\n  - listen: 1:25\n",
        [
            "2:13: listeners[0].listen: YAML reads an unquoted 1:25 as the number 85 (base 60) (put it in quotes, or write a "
            "plain decimal number)"
        ],
    ),
    "octal": (
        "limits: {recipients: 0100}\n",
        [
            "1:22: limits.recipients: YAML reads an unquoted 0100 as the number 64 (octal) (put it in quotes, or write a plain "
            "decimal number)"
        ],
    ),
    "hexadecimal": (
        "limits: {recipients: 0x10}\n",
        [
            "1:22: limits.recipients: YAML reads an unquoted 0x10 as the number 16 (hexadecimal) (put it in quotes, or write a "
            "plain decimal number)"
        ],
    ),
    "a port for an address": (
        "http: {listen: 9125}\n",
        ["1:16: http.listen: must be HOST:PORT, as in 127.0.0.1:25"],
    ),
    "a number for text": (
        "transports: {a: {type: ses, profile: 12}}\n",
        ["1:38: transports.a.profile: YAML reads this as a number (for text, put it in quotes)"],
    ),
    "yes for a number": (
        "limits: {recipients: yes}\n",
        ["1:22: limits.recipients: YAML reads an unquoted yes as true (must be a whole number; put text in quotes)"],
    ),
    "size": (
        "limits: {message_size: 25Mb}\nqueue: {max_age: 3 days}\n",
        ["2:18: queue.max_age: must be a time: a number with s, m, h or d, as in 30s or 4h"],
    ),
    "no size": (
        "limits: {message_size: lots}\n",
        ["1:24: limits.message_size: must be a size: a number with KiB, MiB, GiB, KB, MB or GB, as in 25MiB"],
    ),
    "zero size": ("limits: {message_size: 0}\n", ["1:24: limits.message_size: must be more than 0"]),
    "warning": ("queue: {delay_warning: never}\n", ["1:24: queue.delay_warning: must be a time, as in 4h, or off"]),
    "empty retry": ("queue: {retry: []}\n", ["1:9: queue.retry: an empty list (leave the key out for the default)"]),
    "ipv6 without brackets": (
        "listeners: [{listen: '::1:25'}]\n",
        ['1:22: listeners[0].listen: an IPv6 address must be in brackets, as in "[::1]:25"'],
    ),
    "ipv6 without quotes": (
        "listeners:\n  - listen: [::1]:25\n",
        ['2:13: yaml: `[` starts a list (put an IPv6 address in quotes, as "[::1]:25")'],
    ),
    "unix socket": (
        "listeners: [{listen: 'unix:'}]\n",
        ["1:22: listeners[0].listen: must be the path of a socket, as in unix:/run/sesrelay/submit.sock"],
    ),
    "unix socket, path too long": (
        f"listeners: [{{listen: 'unix:/{'x' * 107}'}}]\n",
        ["1:22: listeners[0].listen: the path of a socket may have at most 107 octets; this one has 108"],
    ),
    "unix socket twice": (
        "listeners: [{listen: 'unix:/s'}, {listen: 'unix:/./s'}]\n",
        [
            "1:43: listeners[1].listen: unix:/s conflicts with unix:/s, the listener at FILE:1:22 "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "unix socket for the page": (
        "http: {listen: 'unix:/run/http.sock'}\n",
        ["1:16: http.listen: not supported by this version (only HOST:PORT is)"],
    ),
    "local user": (
        "access: {local_users: {'www data': [a.example]}}\n",
        ["1:24: access.local_users.www data: must be the name of a local user, or a uid, not 'www data'"],
    ),
    "local user with nothing": (
        "access: {local_users: {www-data: []}}\n",
        ["1:24: access.local_users.www-data: an empty list (leave the key out for the default)"],
    ),
    "local user with no pattern": (
        "access: {local_users: {www-data: ['a b', '@foo.example']}}\n",
        [
            "1:35: access.local_users.www-data[0]: must be an address, a domain or *.domain, not 'a b': "
            "the domain label 'a b' has characters that are not allowed in a host name",
            "1:42: access.local_users.www-data[1]: '@foo.example' is not a pattern (did you mean foo.example?)",
        ],
    ),
    "claimed twice by one": (
        "access: {local_users: {a: [x.example, b.example, B.EXAMPLE.]}}\n",
        ["1:50: access.local_users.a[2]: 'B.EXAMPLE.' is defined twice (first at FILE:1:39)"],
    ),
    "listeners twice": (
        "listeners: [{listen: '127.0.0.1:25'}, {listen: 'localhost:25'}]\n",
        [
            "1:48: listeners[1].listen: localhost:25 conflicts with 127.0.0.1:25, the listener at FILE:1:22 "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "listeners twice, written in two ways": (
        "listeners: [{listen: '[::1]:25'}, {listen: '[0:0:0:0:0:0:0:1]:25'}]\n",
        [
            "1:44: listeners[1].listen: [0:0:0:0:0:0:0:1]:25 conflicts with [::1]:25, the listener at FILE:1:22 "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "listener under a wildcard": (
        "access: {networks: [192.0.2.0/24]}\nlisteners:\n- listen: 127.0.0.1:25\n- listen: 0.0.0.0:25\n",
        [
            "4:11: listeners[1].listen: 0.0.0.0:25 conflicts with 127.0.0.1:25, the listener at FILE:3:11 "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "listener where the page is": (
        "listeners: [{listen: '127.0.0.1:8025'}]\nhttp: {listen: 'localhost:8025'}\n",
        [
            "1:22: listeners[0].listen: 127.0.0.1:8025 conflicts with localhost:8025, the page at FILE:2:16 "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "listener where the page is by default": (
        "listeners: [{listen: '127.0.0.1:9125'}]\n",
        [
            "1:22: listeners[0].listen: 127.0.0.1:9125 conflicts with 127.0.0.1:9125, the page "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "listener on the control socket": (
        "control: /x/c.sock\nlisteners: [{listen: 'unix:/x/y/../c.sock'}]\n",
        [
            "2:22: listeners[0].listen: unix:/x/y/../c.sock conflicts with unix:/x/c.sock, the control socket at FILE:1:10 "
            "(each needs its own address and port, or its own path)"
        ],
    ),
    "tls without files": (
        "listeners: [{listen: '127.0.0.1:25', tls: starttls, key: k.pem}]\n",
        ["1:13: listeners[0].certificate: missing (tls: starttls needs a certificate and its key)"],
    ),
    "user without a password": (
        "access: {users: [{name: blog}]}\n",
        ["1:18: access.users[0]: has no password (add password_hash or password_hash_file)"],
    ),
    "memory for less than one message": (
        "limits: {message_size: 50MiB, memory: 128MiB}\n",
        ["1:39: limits.memory: messages of 50MiB need limits.memory of at least 250MiB (it is 128MiB)"],
    ),
    "messages too large for the default memory": (
        "limits: {message_size: 100MiB}\n",
        ["1:24: limits.message_size: messages of 100MiB need limits.memory of at least 500MiB (it is 256MiB)"],
    ),
    "feedback not built": ("feedback: [{queue: x}]\n", ["1:1: feedback: not supported by this version (leave it out)"]),
    "postgres not built": (
        "queue: {url: postgresql://u@h/db}\n",
        ["1:14: queue.url: not supported by this version (only sqlite is)"],
    ),
    "what v1 lacks": (
        "transports: {a: {type: ses, api: v1, tenant: t, list_management: {contact_list: l}}}\n",
        [
            "1:46: transports.a.tenant: supported by the v2 API only (set api: auto or v2)",
            "1:49: transports.a.list_management: supported by the v2 API only (set api: auto or v2)",
        ],
    ),
    "endpoints that exclude each other": (
        "transports: {a: {type: ses, fips: true, endpoint_id: a.b}, b: {type: ses, dual_stack: true, endpoint_url: 'http://h'}}\n",
        [
            "1:35: transports.a.fips: SES has no FIPS endpoint that spans regions (leave out fips or endpoint_id)",
            "1:87: transports.b.dual_stack: has no effect together with endpoint_url",
        ],
    ),
    "share, reserve and tariff": (
        "transports: {a: {type: ses, share: 0%, daily_reserve: 100%, tariff: {per_1000: -1}}}\n",
        [
            "1:36: transports.a.share: must be more than 0%",
            "1:55: transports.a.daily_reserve: must be less than 100%",
            "1:80: transports.a.tariff.per_1000: must be a price as a number, as in 0.10",
        ],
    ),
    "a level of TLS that is none": (
        "transports: {direct: {type: direct, tls: dan, tls_policy: {a..b: dane, x.example: mta_sts}}}\n",
        [
            "1:42: transports.direct.tls: must be none, opportunistic, required, dane or mta-sts, not 'dan' (did you mean dane?)",
            "1:66: transports.direct.tls_policy.a..b: must be a domain, as in example.com: the domain has an empty label",
            "1:83: transports.direct.tls_policy.x.example: must be none, opportunistic, required, dane or mta-sts, not 'mta_sts' "
            "(did you mean mta-sts?)",
        ],
    ),
    "limits of a route": (
        "routes:\n- {sender: a.example, transport: direct, rate: fast, concurrency: 0, daily_cap: -1}\n"
        "- {sender: b.example, transport: direct, warm_up: {start: soon, plan: [10, x]}, priority_header: 'X Y'}\n"
        "- {sender: c.example, transport: direct, warm_up: {plan: []}, rate: 0/s}\n",
        [
            "2:48: routes[0].rate: must be recipients per time, as in 10/s, 600/m, 5000/h or 20000/d",
            "2:67: routes[0].concurrency: must be at least 1",
            "2:81: routes[0].daily_cap: must be at least 1",
            "3:59: routes[1].warm_up.start: must be a day, as in 2026-01-31",
            "3:76: routes[1].warm_up.plan[1]: must be a whole number",
            "3:98: routes[1].priority_header: must be the name of a header field, as in X-Priority",
            "4:42: routes[2].warm_up.start: missing",
            "4:52: routes[2].warm_up.plan: an empty list (leave the key out for the default)",
            "4:69: routes[2].rate: must be recipients per time, as in 10/s, 600/m, 5000/h or 20000/d",
        ],
    ),
    "limits of one name that differ": (
        "routes:\n- {sender: a.example, transport: direct, rate: 5/s}\n- {sender: news@a.example, transport: direct, rate: 1/s}\n",
        [
            "3:12: routes[1].sender: the route at FILE:2:3 has the same name 'a.example' but other limits "
            "(give one of them another name)"
        ],
    ),
    "off loopback": (
        "listeners: [{listen: '0.0.0.0:25'}]\n",
        [
            "1:22: listeners[0].listen: listens beyond loopback, but access.networks lists only loopback (list the networks that "
            "may connect, or listen on 127.0.0.1)"
        ],
    ),
    "page off loopback": (
        "http: {listen: '0.0.0.0:80'}\n",
        ["1:16: http.listen: listens beyond loopback without a token (add http.token_file, or listen on 127.0.0.1)"],
    ),
    "network with host bits": (
        "access: {networks: [192.0.2.1/24]}\n",
        ["1:21: access.networks[0]: '192.0.2.1/24' has bits set behind its prefix (did you mean 192.0.2.0/24?)"],
    ),
    "network of IPv4 as IPv6": (
        "access: {networks: ['::ffff:10.0.0.0/104']}\n",
        ["1:21: access.networks[0]: '::ffff:10.0.0.0/104' is an IPv4 address written as IPv6 (did you mean 10.0.0.0/8?)"],
    ),
    "addresses of IPv4 as IPv6": (
        "listeners: [{listen: '[::ffff:127.0.0.1]:25'}]\nhttp: {listen: '[::ffff:7f00:1]:80'}\n",
        [
            "1:22: listeners[0].listen: '[::ffff:127.0.0.1]:25' is an IPv4 address written as IPv6 (did you mean 127.0.0.1:25?)",
            "2:16: http.listen: '[::ffff:7f00:1]:80' is an IPv4 address written as IPv6 (did you mean 127.0.0.1:80?)",
        ],
    ),
    "transport type": (
        "transports: {a: {type: sess}, b: {host: h}}\n",
        [
            "1:14: transports.a: its type must be ses, smtp, direct, hold or discard, not 'sess' (did you mean ses?)",
            "1:31: transports.b: its type is missing (type: ses, smtp, direct, hold or discard)",
        ],
    ),
    "transport of nothing": ("transports:\n  a:\n", ["2:5: transports.a: must be a mapping"]),
    "relay without host": ("transports: {a: {type: smtp}}\n", ["1:14: transports.a.host: missing (set the relay's name)"]),
    "relay with two": (
        "transports: {a: {type: smtp, host: a, hosts: [b]}}\n",
        ["1:39: transports.a.hosts: host is set too (use only one of the two)"],
    ),
    "SES beside another host": (
        "transports:\n  a:\n    type: smtp\n    hosts: [relay.example, email-smtp.eu-west-1.amazonaws.com]\n"
        "  b: {type: smtp, hosts: [email-smtp.eu-west-1.amazonaws.com, email-smtp.us-east-1.amazonaws.com]}\n"
        "  c: {type: smtp, hosts: [email-smtp.eu-west-1.amazonaws.com]}\n",
        [
            f"{place}: transports.{name}.hosts: an SES endpoint must be the only host (use one transport for each SES endpoint, "
            "and a route that lists them in order)"
            for place, name in (("4:5", "a"), ("5:19", "b"))
        ],
    ),
    "host with port": (
        "transports: {a: {type: smtp, host: 'relay.example:25'}}\n",
        ["1:36: transports.a.host: must be a host without a port, not 'relay.example:25' (the port has its own key)"],
    ),
    "half of the credentials": (
        "transports: {a: {type: ses, access_key_id: AKIA, external_id: x}}\n",
        [
            "1:44: transports.a.access_key_id: has no secret (add secret_access_key or secret_access_key_file)",
            "1:63: transports.a.external_id: has no effect without role_arn",
        ],
    ),
    "the tag that is the relay's": (
        "transports: {a: {type: ses, tags: {site: x, sesrelay-id: x}}}\n",
        ["1:58: transports.a.tags.sesrelay-id: reserved: sesrelay uses this tag for the queue id (use another name)"],
    ),
    "region": (
        "transports: {a: {type: ses, region: us-east}}\n",
        ["1:37: transports.a.region: must be an AWS region, as in us-east-1, not 'us-east'"],
    ),
    "transport's name in a route": (
        "transports: {ses-main: {type: ses}}\nroutes: [{sender: a.example, transport: ses-mian}]\n",
        ["2:41: routes[0].transport: there is no transport 'ses-mian' (did you mean ses-main?)"],
    ),
    "transport's name that is taken": (
        "transports: {undeliverable: {type: hold}}\n",
        ["1:14: transports.undeliverable: is the folder for bounces that cannot be sent (use another name)"],
    ),
    "transport's name elsewhere": (
        "default_route: {transport: [direct, a]}\nnull_sender_route: {transport: dirct}\n",
        [
            "1:37: default_route.transport[1]: there is no transport 'a' (known here: direct)",
            "2:32: null_sender_route.transport: there is no transport 'dirct' (did you mean direct?)",
        ],
    ),
    "null route": (
        "null_sender_route: {transprt: direct}\n",
        [
            "1:1: null_sender_route.transport: missing",
            "1:21: null_sender_route.transprt: unknown key (did you mean transport?)",
        ],
    ),
    "null route as a name": ("null_sender_route: direct\n", ["1:20: null_sender_route: must be auto, not 'direct'"]),
    "route without way": (
        "routes:\n  - sender: a.example\n",
        ["2:5: routes[0].transport: missing (set a transport's name, or reject: true)"],
    ),
    "route with both ways": (
        "routes: [{sender: a.example, transport: direct, reject: true}]\n",
        ["1:57: routes[0].reject: transport is set too (use only one of the two)"],
    ),
    "route without sender": ("routes:\n  - transport: direct\n", ["2:5: routes[0].sender: missing"]),
    "pattern twice": (
        "routes:\n  - {sender: Example.com, transport: direct}\n  - {sender: [b.example, EXAMPLE.COM.], reject: true}\n",
        ["3:26: routes[1].sender[1]: 'EXAMPLE.COM.' is defined twice (first at FILE:2:14)"],
    ),
    "pattern twice, IDNA": (
        "routes:\n  - {sender: bücher.example, transport: direct}\n  - {sender: xn--bcher-kva.example, reject: true}\n",
        ["3:14: routes[1].sender: 'xn--bcher-kva.example' is defined twice (first at FILE:2:14)"],
    ),
    "pattern of Postfix": (
        "routes: [{sender: '@foo.example', transport: direct}]\n",
        ["1:19: routes[0].sender: '@foo.example' is not a pattern (did you mean foo.example?)"],
    ),
    "pattern with a star inside": (
        "routes: [{sender: 'a.*.example', transport: direct}]\n",
        [
            "1:19: routes[0].sender: must be an address, a domain or *.domain, not 'a.*.example': the * is allowed only at the "
            "beginning, "
            "as in *.example.com"
        ],
    ),
    "priority": (
        "routes: [{sender: a.example, transport: direct, priority: hihg}]\n",
        ["1:59: routes[0].priority: must be high, normal or low, not 'hihg' (did you mean high?)"],
    ),
    "expectation": (
        "transports: {s: {type: ses}}\nroutes:\n  - {sender: example.com, transport: s}\nexpect:\n"
        "  - {sender: a@www.example.com, to: b@example.org, transport: s}\n",
        [
            "5:5: expect[0]: mail from a@www.example.com goes by direct by the rule default_route, not s as expected; not by "
            "example.com (FILE:3): www.example.com is a sub-domain; write *.example.com to match it"
        ],
    ),
    "expectation of a refusal": (
        "expect: [{sender: a@b.example, reject: true}]\n",
        ["1:10: expect[0]: mail from a@b.example goes by direct by the rule default_route, not refused as expected"],
    ),
    "variable": (
        "hostname: ${SESRELAY_NOT_SET}\nqueue: {max_age: '${OPEN'}\n",
        [
            "1:11: hostname: ${SESRELAY_NOT_SET} is not set in the environment",
            "2:18: queue.max_age: `${` begins a variable's name, which must end with `}` (write $${ for the text itself)",
        ],
    ),
    "tab": ("log:\n\tlevel: info\n", ["2:1: yaml: YAML does not allow tabs for indentation (use spaces)"]),
    "two documents": ("log: {}\n---\nlog: {}\n", ["2:1: yaml: a second document begins here (at most one `---` is allowed)"]),
    "tag": (
        "hostname: !!python/object/apply:os.system ['true']\n",
        ["1:11: hostname: tags are not supported here (put text that starts with ! in quotes)"],
    ),
    "control character": ("hostname: a\x07b\n", ["1:12: yaml: the control character U+0007 cannot stand in YAML"]),
    "missing secret": (
        "transports: {a: {type: smtp, host: h, username: u, password_file: nix}}\n",
        ["1:67: transports.a.password_file: DIR/nix cannot be read: No such file or directory"],
    ),
}


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", BAD)
def test_bad_configuration_gets_exactly_these_lines(name: str, tmp_path: Path) -> None:
    text, expected = BAD[name]
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    assert problems(file) == [f"{file}:{line}".replace("FILE:", f"{file}:").replace("DIR/", f"{tmp_path}/") for line in expected]


def test_every_problem_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "hostnam: a\nlimits: {recipients: lots}\ntransports: {a: {type: smpt}}\n"
        "routes: [{sender: x.example, transport: b}]\nhttp: {listen: '0.0.0.0:80'}\n"
    )
    assert [line.split(": ")[1] for line in problems(file)] == [
        "hostnam", "limits.recipients", "transports.a", "routes[0].transport", "http.listen",
    ]  # fmt: skip


def test_a_file_that_is_missing_or_no_file(tmp_path: Path) -> None:
    remedy = "`sesrelay init` writes one, and --config FILE names another"
    assert problems(tmp_path / "none.yaml") == [
        f"{tmp_path}/none.yaml:1:1: file: cannot be read: No such file or directory; {remedy}"
    ]
    assert problems(tmp_path) == [f"{tmp_path}:1:1: file: cannot be read: Is a directory"]
    os.mkfifo(tmp_path / "fifo.yaml")
    assert problems(tmp_path / "fifo.yaml") == [f"{tmp_path}/fifo.yaml:1:1: file: cannot be read: it is not a regular file"]


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"log: {}\nhostname: b\xfccher.example\n")
    assert problems(file) == [f"{file}:2:12: yaml: not UTF-8 (save the file as UTF-8)"]


def test_a_syntax_error_is_one_line_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("routes: [a\nlog: {}\n")
    (line,) = problems(file)
    assert line.startswith(f"{file}:2:4: yaml: ")


def test_a_key_with_a_line_feed_is_still_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('"a\\nb\\x1b": 1\n')
    (line,) = problems(file)
    assert "\n" not in line and "\x1b" not in line and "a\\nb\\x1b" in line


@pytest.mark.parametrize(
    "value",
    [
        "9" * 5_000,
        "0x" + "f" * 5_000,
        "!!int 08",
        "!!int abc",
        "!!float '1:x'",
        "!!bool maybe",
        ".nan",
        "-.inf",
        "1e999",
        "-1",
        '"\\ud800"',
    ],
    ids=lambda value: value[:12],
)
@pytest.mark.parametrize("key", ["limits: {recipients: %s}", "queue: {max_age: %s}", "state_dir: [%s]", "queue: {retry: [%s]}"])
def test_strange_numbers_are_problems_and_no_crash(key: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(key % value)
    assert len(problems(file)) == 1


def test_half_a_character_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # libyaml refuses it by itself, PyYAML's own parser does not.
    monkeypatch.setattr("yaml.__with_libyaml__", False)
    monkeypatch.setenv("SESRELAY_TEST_LATIN1", "b\udcfccher")
    file = tmp_path / "config.yaml"
    file.write_text(
        '"\\ud800": 1\nhostname: "\\ud800"\ntransports: {"\\ud800": {type: hold}}\nlocal: {domain: "${SESRELAY_TEST_LATIN1}"}\n'
    )
    assert [line.split(": ")[1:3] for line in problems(file)] == [
        ["yaml", "a key must be text"],
        ["hostname", "not valid text (half of a character, or a variable that is not UTF-8)"],
        ["transports", "a key must be text"],
        ["local.domain", "not valid text (half of a character, or a variable that is not UTF-8)"],
    ]


def test_names_of_files_that_no_file_can_have(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('state_dir: "a\\0b"\ntransports: {a: {type: smtp, host: h, username: u, password_file: "a\\0"}}\n')
    found = problems(file)
    assert any("state_dir: " in line for line in found) and any("a.password_file: " in line for line in found)


ALIAS_BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        ALIAS_BOMB,
        "a: &a [*a, *a]\n",
        "a: &a {<<: *a}\n",
        f"a: &a {'x' * 500_000}\nb: [{','.join(['*a'] * 9_000)}]\n",
        f"a: &a {{{', '.join(f'k{n}: 1' for n in range(5_000))}}}\nb: {{<<: [{','.join(['*a'] * 9_000)}]}}\n",
    ],
    ids=["wide", "recursive", "merged into itself", "long", "merged often"],
)
def test_an_alias_bomb_is_refused_within_bounds(text: str, tmp_path: Path) -> None:
    import tracemalloc

    file = tmp_path / "config.yaml"
    file.write_text(text)
    load_nothing(tmp_path)  # imports and caches are not the bomb's
    tracemalloc.start()
    try:
        lines = problems(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(lines) == 1 and "aliases expand to far too much data, or to themselves" in lines[0]
    assert peak < 50 * 10**6


def load_nothing(folder: Path) -> None:
    (folder / "empty.yaml").write_text("{}")
    load(folder / "empty.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 5_000, "- " * 100_000], ids=["lists", "mappings", "blocks"])
def test_deep_nesting_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    (line,) = problems(file)
    assert "nested more than 32 levels deep" in line or "yaml:" in line


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        *(
            (url, _NO_URL)
            for url in (
                "email.us-east-1.amazonaws.com", "ftp://ses.example", "https://", "https://:443", "https://?x", "https://a b",
                "https://a\tb", "https://ses.example:99999", "https://ses.example:port", "https://ses.example:0", "https://[::1",
                "https://[::1]x:80", "https://a..b", "https://-a-.example", "https://a_b.example", "https://ü.example",
                "https://ses.example/ü", "https://ses.example\\x", f"https://{'a' * 64}.example",
            )
        ),
        *((url, _BARE_URL) for url in ("https://me:word@ses.example/", "https://ses.example/?a=b", "https://ses.example#a")),
    ],
)  # fmt: skip
def test_an_endpoint_that_no_request_could_go_to(url: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"transports": {"a": {"type": "ses", "region": "us-east-1", "endpoint_url": url}}}))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [one.message for one in caught.value.problems] == [problem]


@pytest.mark.parametrize(
    "url",
    ["http://ses", "HTTPS://Ses.Example:443/", "http://127.0.0.1:4579", "https://[::1]:4579/a/b", "https://vpce-1.email.example/"],
)
def test_an_endpoint_is_taken_as_it_is_written(url: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"transports": {"a": {"type": "ses", "region": "us-east-1", "endpoint_url": url}}}))
    (way,) = (each for each in load(file).config.transports.values() if isinstance(each, SesTransport))
    assert way.endpoint_url == url
