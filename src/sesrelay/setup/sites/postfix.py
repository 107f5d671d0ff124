"""What Postfix was told about senders and their relays, and what UBOS told it, as sites.

Carried over: sender_dependent_relayhost_maps with the credentials of smtp_sasl_password_maps, from tables whose text can be
read, and whether TLS must be. Everything else is a note, so that nobody believes it was.

Source: postconf(5), «sender_dependent_relayhost_maps», «smtp_sasl_password_maps», «smtp_tls_security_level»; regexp_table(5);
UBOS's `amazonses`, which keeps one file a site in sender_dependent_relayhost_map.d and smtp_sasl_password_map.d.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from sesrelay.mail.address import AddressError
from sesrelay.policy.patterns import pattern_key
from sesrelay.setup.sites.site import Relay, Secret, Site, relay_host

INDEXED = ("hash", "btree", "lmdb", "dbm", "cdb", "texthash")
PATTERNS = ("regexp", "pcre")
SERVERS = ("ldap", "mysql", "pgsql", "sqlite", "mongodb")  # whose name or file is no secret
UBOS = Path("/etc/amazonses")
RELAYHOSTS_D, PASSWORDS_D = "sender_dependent_relayhost_map.d", "smtp_sasl_password_map.d"

UNREAD = (
    "transport_maps",
    "sender_dependent_default_transport_maps",
    "smtp_generic_maps",
    "sender_canonical_maps",
    "smtp_tls_policy_maps",
)
ENCRYPTED = ("encrypt", "verify", "secure", "dane-only", "fingerprint")  # levels at which nothing leaves in clear text
NO_END = "the pattern has no end anchor ($)"
EVERYBODY = "*"  # the key of a table that has one answer for all
# One table of a list: what braces hold belongs to it, two deep.
_TABLE = re.compile(r"(?:[^\s,{}]|\{(?:[^{}]|\{[^{}]*\})*\})+")
_PATTERN_LINE = re.compile(r"(?P<delimiter>[^\w\s])(?P<pattern>.*)(?P=delimiter)(?P<flags>[a-zA-Z]*)\s+(?P<result>.*)\Z")
# What people write for `everybody at this domain`: an optional start, the @, the domain with its dots escaped, an optional end.
_DOMAIN_PATTERN = re.compile(
    r"\^?(?:\.[*+]|\(\.[*+]\))?(?:\\?@)(?P<sub>\((?:\.\*|\.\+)\\\.\)\?)?(?P<domain>(?:[\w-]|\\\.)+)(?P<end>\$?)\Z"
)


@dataclass(slots=True)
class Imported:
    """`notes`: what was not carried over, or means something else here, a sentence each."""

    sites: list[Site] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table: `key` an address or `@domain`, or as written where it is no such thing."""

    key: str
    value: str
    place: str


def from_postfix(main_cf: Path) -> Imported:
    """Read Postfix's main.cf and the tables it names. Raises: OSError where main.cf cannot be read"""
    settings = _main_cf(main_cf.read_text(encoding="utf-8", errors="replace"), main_cf.absolute().parent)
    found = Imported()
    relays = list(_tables(settings.get("sender_dependent_relayhost_maps", ""), found))
    unread = Imported()
    passwords = list(_tables(settings.get("smtp_sasl_password_maps", ""), unread))
    found.notes += [note for note in unread.notes if not note.partition(": ")[2].startswith(NO_END)]
    by_sender, tls = settings.get("smtp_sender_dependent_authentication", "no") == "yes", _tls(settings, main_cf, found)
    null = settings.get("empty_address_relayhost_maps_lookup_key", "<>")
    known: dict[str, str] = {}  # sender: the next hop of the line that counts, which is the first
    names: dict[str, str] = {}  # site: whose it is
    for entry in relays:
        unfit = _unfit(entry, null)
        sender = "" if unfit else pattern_key(entry.key.removeprefix("@"))
        if not unfit and sender in known:
            if known[sender] == entry.value:
                continue
            unfit = f"{entry.key} is already listed further up, and Postfix uses that line; left out"
        elif not unfit:
            known[sender] = entry.value
        if not unfit and "@" in sender and _is_none(entry.value):
            unfit = f"{entry.key} has no relay in Postfix, whatever its domain has: write its route by hand"
        if unfit:
            found.notes.append(f"{entry.place}: {unfit}")
        else:
            _add(found, _name(sender, names), entry, passwords, by_sender=by_sender, tls=tls)
    for entry in _own_logins(known, passwords) if by_sender else ():
        _add(found, _name(entry.key, names), entry, passwords, by_sender=True, tls=tls)
    found.sites = _joined(found.sites)
    if not relays:
        found.notes.append(f"{main_cf}: sender_dependent_relayhost_maps names no sender")
    if settings.get("relayhost"):
        found.notes.append(
            f"{main_cf}: relayhost = {settings['relayhost']} is for all other senders: "
            "use a transport of type smtp in default_route"
        )
    for name in UNREAD:
        if settings.get(name):
            found.notes.append(f"{main_cf}: {name} was not imported")
    return found


def from_ubos(folder: Path = UBOS) -> Imported:
    """Read the folders of UBOS's `amazonses`, one site a file. Raises: OSError where that of the relays cannot be listed"""
    files = sorted(file for file in (folder / RELAYHOSTS_D).iterdir() if file.is_file() and not file.name.startswith("."))
    found = Imported()
    for file in files:
        relays, passwords = list(_patterns(file, found)), []
        credentials = folder / PASSWORDS_D / file.name
        if credentials.exists():
            passwords = list(_patterns(credentials, Imported()))  # what is to be said of its patterns, the others say
        for entry in relays:
            _add(found, file.name, entry, passwords, by_sender=True)
    found.sites = _joined(found.sites)
    return found


def _unfit(entry: Entry, null: str) -> str | None:
    """Return why a line gives no sender a way out, which Postfix looks up by the whole address and by `@domain`; else None."""
    if entry.key == null:
        return (
            f"mail with the null sender goes through {entry.value} in Postfix; here it follows its header From, "
            "unless you set null_sender_route: {transport: NAME}"
        )
    if entry.key == EVERYBODY:
        return f"{entry.value} is for all senders: use a transport of type smtp in default_route"
    if "@" not in entry.key:
        return f"Postfix looks up addresses and @domain, never {entry.key}, so this line has no effect there; left out"
    try:
        pattern_key(entry.key.removeprefix("@"))
    except AddressError as error:
        return f"{entry.key} is not a sender: {error}; left out"
    return None


def _tls(settings: Mapping[str, str], main_cf: Path, found: Imported) -> str | None:
    """Return what a transport must say of TLS so that nothing leaves in clear text which did not; None: no more than usual."""
    if settings.get("smtp_tls_wrappermode") == "yes":
        return "implicit"
    level = settings.get("smtp_tls_security_level", "encrypt" if settings.get("smtp_enforce_tls") == "yes" else "")
    if level in ("dane", "dane-only", "fingerprint"):
        found.notes.append(
            f"{main_cf}: smtp_tls_security_level = {level}: here the host's certificate is verified by its issuing CA"
        )
    return "required" if level in (*ENCRYPTED, "dane") else None


def _add(found: Imported, name: str, entry: Entry, passwords: list[Entry], *, by_sender: bool, tls: str | None = None) -> None:
    """Make a site of one line, or a note."""
    if _is_none(entry.value):
        return
    try:
        host, port, by_mx = relay_host(entry.value)
    except ValueError as error:
        found.notes.append(f"{entry.place}: {error}")
        return
    if by_mx:
        found.notes.append(f"{entry.place}: Postfix looks up MX hosts of {host}; here the relay connects to that host itself")
    login = _login(entry, host, passwords, by_sender=by_sender)
    if login is None:
        found.notes.append(f"{entry.place}: there are no credentials for {entry.value}")
    username, password = login or (None, None)
    secret = None if password is None else Secret(f"{name}.secret", password)
    relay = Relay(host, port, username, secret, tls)
    if any(site.name == name and site.way != relay for site in found.sites):
        found.notes.append(f"{entry.place}: {name} has another relay already; left out")
        return
    found.sites.append(Site(name, (entry.key.removeprefix("@"),), relay))


def _is_none(value: str) -> bool:
    return value.strip().upper() in ("", "DUNNO")


def _own_logins(known: Mapping[str, str], passwords: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the senders who log in for themselves at the relay of their domain. `known`: senders and their next hops."""
    for one in passwords:
        try:
            sender = pattern_key(one.key)
        except AddressError:
            continue
        relay = known.get(sender.rpartition("@")[2])
        if sender.rpartition("@")[0] and sender not in known and relay is not None:
            yield Entry(sender, relay, one.place)


def _login(entry: Entry, host: str, passwords: list[Entry], *, by_sender: bool) -> tuple[str, str] | None:
    """Return user name and password as Postfix's SMTP client would find them: by sender, then by next hop."""
    domain = f"@{entry.key.rpartition('@')[2]}"
    wanted = [*([entry.key, domain] if by_sender else []), host, entry.value, f"[{host}]"]
    known: dict[str, str] = {}
    for one in passwords:
        known.setdefault(one.key.lower(), one.value)
    value = next((known[key.lower()] for key in wanted if key.lower() in known), known.get(EVERYBODY))
    if value is None:
        return None
    username, _, password = value.partition(":")
    return username.strip(), password.strip()


def _joined(sites: list[Site]) -> list[Site]:
    """Make one site of those with one name and one relay."""
    joined: dict[str, Site] = {}
    for site in sites:
        before = joined.get(site.name)
        domains = dict.fromkeys((*(before.domains if before else ()), *site.domains))
        joined[site.name] = Site(site.name, tuple(domains), site.way)
    return list(joined.values())


# --- tables ------------------------------------------------------------------------------------------------------


def _tables(value: str, found: Imported) -> Iterator[Entry]:
    """Yield what the tables of a setting say.

    A note names a table that cannot be read by its kind and file alone: the rest of some kinds is what they hold, passwords too.
    Source: postconf(5), DATABASE_README «Postfix lookup table types»
    """
    for table in (one.removeprefix("proxy:") for one in _TABLE.findall(value)):
        kind, _, path = table.partition(":")
        file = Path(path)
        if kind in PATTERNS:
            yield from _patterns(file, found)
        elif kind in INDEXED:
            yield from _indexed(file, found)
        elif table.startswith("/"):
            yield from _indexed(Path(table), found)  # of default_database_type
        elif kind == "static" and path:
            yield Entry(EVERYBODY, path.strip("{} "), "static:")
        else:
            shown = table if path.startswith("/") or kind in SERVERS else f"{kind.partition('{')[0]}:…"
            found.notes.append(f"{shown}: tables of this kind cannot be imported")


def _indexed(file: Path, found: Imported) -> Iterator[Entry]:
    for number, line in _logical_lines(file, found):
        key, _, value = line.partition(" ")
        if key.startswith("@*"):
            found.notes.append(f"{file}:{number}: a table of this kind has no patterns, so {key} has no effect there; left out")
        else:
            yield Entry(key, value.strip(), f"{file}:{number}")


def _patterns(file: Path, found: Imported) -> Iterator[Entry]:
    """Yield the lines of a regexp table that mean one domain."""
    depth = 0
    for number, line in _logical_lines(file, found):
        place, word = f"{file}:{number}", line[:5].lower()
        if word == "endif" or re.match(r"if\b", word):
            depth += -1 if word == "endif" else 1
            if word != "endif":
                found.notes.append(f"{place}: a conditional block is left out, up to its endif; write its routes by hand")
            continue
        if depth > 0:
            continue
        parts = _PATTERN_LINE.match(line)
        domain = _DOMAIN_PATTERN.match(parts["pattern"]) if parts else None
        if parts is None or domain is None:
            found.notes.append(f"{place}: this pattern matches more than one domain; write its route by hand")
            continue
        key = "@" + domain["domain"].replace("\\.", ".")
        if not domain["end"]:
            found.notes.append(f"{place}: {NO_END}, so {key[1:]}.evil.example matched too; here only the domain itself matches")
        result = parts["result"].strip().replace("$$", "$")
        yield Entry(key, result, place)
        if domain["sub"]:
            yield Entry(f"@*.{key[1:]}", result, place)


def _logical_lines(file: Path, found: Imported) -> Iterator[tuple[int, str]]:
    """Yield the lines of a table with their numbers; a line that begins with white space continues the one before."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        found.notes.append(f"{file}: {error.strerror}")
        return
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and lines:
            lines[-1] = (lines[-1][0], f"{lines[-1][1]} {line.strip()}")
        else:
            lines.append((number, re.sub(r"\s+", " ", line.strip())))
    yield from lines


def _main_cf(text: str, folder: Path) -> Mapping[str, str]:
    """Return the settings of the main.cf in `folder`, with `$name` put in. Source: postconf(5)."""
    settings = {"config_directory": str(folder), "default_database_type": "hash"}
    name = ""

    def value_of(found: re.Match[str]) -> str:
        return settings.get(found[1] or found[2] or found[3], found[0])

    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0].isspace() and name:
            settings[name] += f" {line.strip()}"
        elif "=" in line:
            name, _, value = (part.strip() for part in line.partition("="))
            settings[name] = value
    reference = re.compile(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))")
    for _ in range(8):  # references may stand in what they refer to, and a circle must end
        for key, value in list(settings.items()):
            settings[key] = reference.sub(value_of, value)
    return settings


def _name(sender: str, names: dict[str, str]) -> str:
    """Return a name for the site of a pattern that no other one has. `names`: whose each is."""
    whose = sender.removeprefix("*.")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", whose.replace("@", ".")).strip("-._")[:60] or "site"
    return next(one for one in chain([name], (f"{name}-{n}" for n in count(2))) if names.setdefault(one, whose) == whose)
