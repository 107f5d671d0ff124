"""The kinds of value that keys have: sizes, durations, hosts, addresses to listen on, patterns, secrets.

Units: sizes are octets, durations seconds, a percentage the fraction of one.
Invariant: no message repeats the value of a key that may hold a secret.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from sesrelay.config.problem import shown
from sesrelay.mail.address import AddressError, domain_key, normalise
from sesrelay.mail.address import check as check_address
from sesrelay.policy.ses_hosts import REGION

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)\Z", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}\Z")
_LOCAL_USER = re.compile(r"[^\s:,/\x00-\x20\x7f-\x9f]{1,64}\Z")
UNIX = "unix:"
UNIX_PATH_MAX = 107  # octets of sun_path without its final NUL, unix(7)
_DURATION_MAX = 3650 * 86400.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
LOOPBACK: tuple[Network, ...] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


class NotSupported(ValueError):
    """A key or value of the schema whose feature this version does not have."""


class Crossed(ValueError):
    """Keys that do not go together: pairs of the key to blame (empty: the whole mapping) and what is wrong."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = problems


def unsupported(default: object) -> AfterValidator:
    """Accept only the default of a key that this version does nothing with."""

    def check(value: Any) -> Any:
        if value != default:
            raise NotSupported("not supported by this version (leave it out)")
        return value

    return AfterValidator(check)


class HostPort(NamedTuple):
    host: str
    port: int


def parse_size(value: object) -> int:
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if match is None or match.group(2).upper() not in _SIZES:
        raise ValueError("must be a size: a number with KiB, MiB, GiB, KB, MB or GB, as in 25MiB")
    return int(float(match.group(1)) * _SIZES[match.group(2).upper()])


def parse_duration(value: object) -> float:
    match = _QUANTITY.match(value) if isinstance(value, str) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif match is not None and match.group(2) in TIMES:
        seconds = float(match.group(1)) * TIMES[match.group(2)]
    else:
        raise ValueError("must be a time: a number with s, m, h or d, as in 30s or 4h")
    if not (math.isfinite(seconds) and 0 <= seconds <= _DURATION_MAX):
        raise ValueError("must be a time from 0s to 3650d")
    return seconds


def parse_delay_warning(value: object) -> float | None:
    if value is None or value is False or value == "off":
        return None
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError("must be a time, as in 4h, or off") from None


def parse_percent(value: object) -> float:
    match = re.match(r"([0-9]+(?:\.[0-9]+)?) ?%\Z", value) if isinstance(value, str) else None
    if match is None or float(match.group(1)) > 100:
        raise ValueError("must be a percentage from 0% to 100%")
    return float(match.group(1)) / 100


def parse_rate(value: object) -> float | None:
    """Return recipients a second, or None for `auto`."""
    if value is None or value == "auto":
        return None
    try:
        rate = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        rate = 0.0
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError("must be auto, or recipients per second as a number above 0")
    return rate


def parse_price(value: object) -> float:
    try:
        price = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except ValueError:
        price = -1.0
    if not (math.isfinite(price) and price >= 0):
        raise ValueError("must be a price as a number, as in 0.10")
    return price


def parse_whole(value: object) -> object:
    # Pydantic would take true for 1.
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number")
    return value


def parse_host_port(value: object) -> str:
    """Check `HOST:PORT` with HOST an IP address, and return it as written."""
    if not isinstance(value, str):
        raise ValueError("must be HOST:PORT, as in 127.0.0.1:25")
    if value.startswith("unix:"):
        raise NotSupported("not supported by this version (only HOST:PORT is)")
    host, port = host_port(value)
    plain = getattr(ipaddress.ip_address(host), "ipv4_mapped", None)
    if plain is not None:  # what is opened for IPv6 here is for IPv6 only, and the kernel has none of these then
        raise ValueError(f"{shown(value)} is an IPv4 address written as IPv6 (did you mean {plain}:{port}?)")
    return value


def parse_listen(value: object) -> str:
    """Check `HOST:PORT` or `unix:PATH`, and return it as written."""
    if not isinstance(value, str) or not value.startswith(UNIX):
        return parse_host_port(value)
    path = value.removeprefix(UNIX)
    if not path or "\0" in path:
        raise ValueError("must be the path of a socket, as in unix:/run/sesrelay/submit.sock")
    octets = len(os.fsencode(path))
    if octets > UNIX_PATH_MAX:
        raise ValueError(f"the path of a socket may have at most {UNIX_PATH_MAX} octets; this one has {octets}")
    return value


def host_port(text: str) -> HostPort:
    """Split `127.0.0.1:25`, `[::1]:25` or `localhost:25`, the last being 127.0.0.1.

    Raises: ValueError
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"must be HOST:PORT, as in 127.0.0.1:25, not {shown(text)}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if bare.lower() == "localhost":
        bare = "127.0.0.1"
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise ValueError(f"HOST must be an IP address, as in 127.0.0.1:25 or 0.0.0.0:25, not {shown(host)}") from None
    if address.version == 6 and bare == host:
        raise ValueError(f'an IPv6 address must be in brackets, as in "[{address}]:{port}"')
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local and not address.scope_id:
        raise ValueError(f'a link-local address needs its interface, as in "[{address}%eth0]:{port}"')
    return HostPort(bare, int(port))


def parse_network(value: object) -> Network:
    if not isinstance(value, str):
        raise ValueError("must be a network, as in 192.0.2.0/24")
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        pass
    else:
        if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):  # clients never look like that
            plain = ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
            raise ValueError(f"{shown(value)} is an IPv4 address written as IPv6 (did you mean {plain}?)")
        return network
    try:
        wide = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"must be a network, as in 192.0.2.0/24 or 2001:db8::/32, not {shown(value)}") from None
    raise ValueError(f"{shown(value)} has bits set behind its prefix (did you mean {wide}?)")


def parse_ip(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be an IP address, not this")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f"must be an IP address, not {shown(value)}") from None


def parse_fingerprint(value: object) -> str:
    """Return the SHA-256 of a certificate as lower-case hexadecimal digits, from what openssl prints."""
    text = value.strip() if isinstance(value, str) else ""
    digits = re.sub(r"\A(?:sha-?256(?: fingerprint)?[:= ]\s*)|[:\s]", "", text, flags=re.I).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("must be the SHA-256 of a certificate (64 hexadecimal digits; openssl x509 -noout -fingerprint -sha256)")
    return digits


def parse_nameserver(value: object) -> str:
    """Return `IP`, `IPV4:PORT` or `[IPV6]:PORT`."""
    if not isinstance(value, str):
        raise ValueError("must be an IP address, with or without a port, as in 127.0.0.1:5353")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        host, port = host_port(value)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_domain(value: str) -> str:
    try:
        return domain_key(value)
    except AddressError as error:
        raise ValueError(f"must be a domain, as in example.com: {error}") from None


def parse_host(value: str) -> str:
    """Check a host to connect to: a name or an IP address, no port."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if ":" in value:
        raise ValueError(f"must be a host without a port, not {shown(value)} (the port has its own key)")
    try:
        return domain_key(value)
    except AddressError as error:
        raise ValueError(f"must be a host, as in relay.example.com: {error}") from None


def parse_address(value: str) -> str:
    try:
        normalise(check_address(value))
    except AddressError as error:
        raise ValueError(f"must be an address, as in ops@example.com, not {shown(value)}: {error}") from None
    return value


def parse_sender(value: str) -> str:
    """Check a sender for `expect`: an address, or `<>` for the null sender, returned as the empty string."""
    return "" if value in ("", "<>") else parse_address(value)


def parse_pattern(value: str) -> str:
    """Check what a route matches: an address, a domain or `*.domain`; return it as written."""
    bare = value.removeprefix("*.")
    if value in ("*", "*.", "*@*", "default"):
        raise ValueError("must be an address, a domain or *.domain (default_route is for everything else)")
    if value.startswith(("@", "*@")) and "@" not in value.partition("@")[2]:
        raise ValueError(f"{shown(value)} is not a pattern (did you mean {value.partition('@')[2]}?)")
    try:
        if "*" in bare and "@" not in bare:
            raise AddressError("the * is allowed only at the beginning, as in *.example.com")
        if "@" in value:
            normalise(check_address(value))
        else:
            domain_key(bare)
    except AddressError as error:
        raise ValueError(f"must be an address, a domain or *.domain, not {shown(value)}: {error}") from None
    return value


def parse_name(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError("must be a name: up to 64 letters, digits, dots, dashes and underscores")
    return value


def parse_user_name(value: str) -> str:
    if not _USER_NAME.match(value):
        raise ValueError("must be a user name: up to 128 letters, digits and . _ + @ -, the first a letter or digit")
    return value


def parse_local_user(value: str) -> str:
    if not _LOCAL_USER.match(value):
        raise ValueError(f"must be the name of a local user, or a uid, not {shown(value)}")
    return str(int(value)) if value.isdecimal() else value


def parse_url(value: str) -> str:
    """Check a URL of a host and perhaps a path, as AWS's library takes it, too; return it as written."""
    try:
        parts = urlsplit(value)
        host = parse_host(parts.hostname or "")
        port = parts.port
    except ValueError:
        host, port = "", None
    # urlsplit drops tabs and line ends, and botocore takes no host with letters beyond ASCII or an underscore.
    plain = value.isascii() and not re.search(r"[\x00-\x20\x7f\\]", value) and "_" not in host
    if not host or not plain or parts.scheme not in ("http", "https") or port == 0:
        raise ValueError("must be a URL, as in https://email.us-east-1.amazonaws.com")
    if "@" in parts.netloc or "?" in value or "#" in value:
        raise ValueError("must be a URL without a user, ? and #, as in https://email.us-east-1.amazonaws.com")
    return value


def parse_region(value: str) -> str:
    if not re.fullmatch(REGION, value):
        raise ValueError(f"must be an AWS region, as in us-east-1, not {shown(value)}")
    return value


def parse_header_name(value: str) -> str:
    if not re.match(r"X-SES-[A-Za-z0-9-]+\Z", value, re.IGNORECASE):
        raise ValueError(f"must be a header that starts with X-SES-, not {shown(value)}")
    return value


def parse_tag(value: str) -> str:
    if not re.match(r"[A-Za-z0-9_-]{1,256}\Z", value):
        raise ValueError("may contain only letters, digits, - and _ (an SES tag)")
    return value


def parse_file(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("must be the path of a file")
    return Path(value)


def as_list(value: object) -> object:
    """Let one name stand for a list of one."""
    if not isinstance(value, str | list | tuple):
        raise ValueError("must be text or a list of texts")
    return [value] if isinstance(value, str) else value


_SIZE_SCHEMA = {"type": ["string", "integer"], "pattern": "^([0-9]+([.][0-9]+)? ?([KMG]i?)?B?|[$][{].*)$", "examples": ["25MiB"]}
_TIME_SCHEMA = {"type": ["string", "number"], "pattern": "^([0-9]+([.][0-9]+)? ?[smhd]?|[$][{].*)$", "examples": ["30s", "4h"]}
_TEXT = {"type": "string"}

Size = Annotated[int, BeforeValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_TIME_SCHEMA)]
DelayWarning = Annotated[
    float | None,
    BeforeValidator(parse_delay_warning),
    WithJsonSchema({"anyOf": [_TIME_SCHEMA, {"enum": ["off", False, None]}]}),
]
Percent = Annotated[float, BeforeValidator(parse_percent), WithJsonSchema({"type": "string", "pattern": "^[0-9.]+ ?%$"})]
Rate = Annotated[
    float | None,
    BeforeValidator(parse_rate),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0}]}),
]
Price = Annotated[float, BeforeValidator(parse_price), WithJsonSchema({"type": "number", "minimum": 0})]
Whole = Annotated[int, BeforeValidator(parse_whole)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
ListenText = Annotated[str, BeforeValidator(parse_host_port), WithJsonSchema({**_TEXT, "examples": ["127.0.0.1:25", "[::1]:25"]})]
MailListenText = Annotated[
    str,
    BeforeValidator(parse_listen),
    WithJsonSchema({**_TEXT, "examples": ["127.0.0.1:25", "[::1]:25", "unix:/run/sesrelay/submit.sock"]}),
]
NetworkValue = Annotated[Network, BeforeValidator(parse_network), WithJsonSchema({**_TEXT, "examples": ["192.0.2.0/24"]})]
Fingerprint = Annotated[str, BeforeValidator(parse_fingerprint), WithJsonSchema(_TEXT)]
Ip = Annotated[str, BeforeValidator(parse_ip), WithJsonSchema(_TEXT)]
Nameserver = Annotated[str, BeforeValidator(parse_nameserver), WithJsonSchema({**_TEXT, "examples": ["127.0.0.1:5353"]})]
Domain = Annotated[str, AfterValidator(parse_domain)]
Host = Annotated[str, AfterValidator(parse_host)]
Address = Annotated[str, AfterValidator(parse_address)]
Sender = Annotated[str, AfterValidator(parse_sender)]
Pattern = Annotated[str, AfterValidator(parse_pattern)]
LocalUser = Annotated[str, AfterValidator(parse_local_user)]
Name = Annotated[str, AfterValidator(parse_name)]
UserName = Annotated[str, AfterValidator(parse_user_name)]
Url = Annotated[str, AfterValidator(parse_url)]
Region = Annotated[str, AfterValidator(parse_region)]
SesHeader = Annotated[str, AfterValidator(parse_header_name)]
Tag = Annotated[str, AfterValidator(parse_tag)]
FilePath = Annotated[Path, BeforeValidator(parse_file), WithJsonSchema(_TEXT)]
_LIST_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
Names = Annotated[tuple[Name, ...], BeforeValidator(as_list), Field(min_length=1), WithJsonSchema(_LIST_SCHEMA)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(as_list), Field(min_length=1), WithJsonSchema(_LIST_SCHEMA)]
