"""One message from standard input to the relay, or into the maildrop while the relay does not take it.

Invariant: exit code 0 means that every recipient's copy is at the relay or in the maildrop. Who was refused is named on
stderr; the others have theirs, as with sendmail and Postfix.

Source: sendmail(8); sysexits.h.
"""

# ruff: noqa: PLC0415 - a module is loaded by the runs that want it

import os
from time import strftime

from sesrelay.sendmail.addresses import sound
from sesrelay.sendmail.client import Broken, Client, Envelope
from sesrelay.sendmail.content import Content
from sesrelay.sendmail.exits import EX_CONFIG, EX_DATAERR, EX_OK, EX_TEMPFAIL, EX_USAGE, Exit, complain, meaning
from sesrelay.sendmail.header import Header, mailbox
from sesrelay.sendmail.options import Options

SOCKET = "/run/sesrelay/submit.sock"
PORT = "127.0.0.1:25"
UNKNOWN_LIMIT = 100 * 1024 * 1024  # octets; while the relay cannot be asked for its own


def place() -> str:
    """Return where the relay is, as HOST:PORT or unix:PATH."""
    return os.environ.get("SESRELAY_SUBMIT") or (f"unix:{SOCKET}" if os.access(SOCKET, os.F_OK) else PORT)


def submit(options: Options, name: str) -> int:
    """Send what stands on standard input; return the exit code."""
    if not options.recipients and not options.from_header:
        raise Exit(EX_USAGE, "no recipients: name them behind the options, or in the header with -t")
    sender, full_name = _sender(options)
    if sender and not sound(sender):
        raise Exit(EX_DATAERR, f"malformed sender address {sender!r}")
    content = Content(_limit)
    content.read(0, dot_ends=options.dot_ends)
    recipients = options.recipients + _completed(content, sender, full_name, from_header=options.from_header)
    recipients = list(dict.fromkeys(recipients))
    if not recipients:
        raise Exit(EX_USAGE, "no recipients: there are none in the header")
    envelope = Envelope(sender, recipients, options.notify, options.ret, options.envid)
    return _report(name, *_deliver(envelope, content))


def _sender(options: Options) -> tuple[str, str]:
    """Return the envelope sender, and the name that goes with it."""
    if options.sender is not None:
        return options.sender, options.full_name
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid{os.getuid()}", options.full_name
    full_name = entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
    return entry.pw_name, options.full_name or full_name


def _completed(content: Content, sender: str, full_name: str, *, from_header: bool) -> list[str]:
    """Give the header what it lacks; return the recipients that stand in it, if they are wanted."""
    header = Header(content.first)
    found: list[str] = []
    if not header.complete and not content.whole:  # what is added would end it, and the rest of it be text
        raise Exit(EX_DATAERR, "the header is too large: it does not end within 1 MiB, which is the most that the relay takes")
    if from_header:
        found = header.recipients()
    before = len(header.fields)
    if from_header:
        header.drop_private()
    changed = len(header.fields) != before
    if sender and full_name and not header.has(b"from"):  # without a name the relay does it, and completes the address
        header.add("From", mailbox(full_name, sender))
        changed = True
    if not header.has(b"date"):  # the moment of submission: in the maildrop a message may wait
        header.add("Date", strftime("%a, %d %b %Y %H:%M:%S %z"))
        changed = True
    if not header.has(b"message-id"):  # by which the relay knows a message from the maildrop again
        header.add("Message-ID", f"<{strftime('%Y%m%d%H%M%S')}.{os.urandom(8).hex()}@{_hostname()}>")
        changed = True
    if changed:
        content.replace_first(header.joined())
    return found


def _hostname() -> str:
    name = os.uname().nodename
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "localhost"


def _limit() -> int:
    """Return how large a message may be, as the relay offers it."""
    try:
        client = Client(place())
    except (Broken, ValueError):
        return UNKNOWN_LIMIT
    client.quit()
    return client.size_limit or UNKNOWN_LIMIT


def _deliver(envelope: Envelope, content: Content) -> tuple[list[tuple[str, str]], list[str], str]:
    """Hand over what can be; return who was refused and why, who is left for later, and the reason for that."""
    refused = [(address, "553 5.1.3 malformed address") for address in envelope.recipients if not sound(address)]
    waiting = [address for address in envelope.recipients if sound(address)]
    later: list[str] = []
    reason = ""
    try:
        client = Client(place()) if waiting else None
        while client and waiting:
            if 0 < client.size_limit < content.size:
                raise Exit(EX_DATAERR, f"the message has {content.size} octets, the relay takes {client.size_limit}")
            ended = client.send(envelope, waiting, content)
            waiting = ended.too_many
            for address, reply in ended.refused:
                if reply.startswith("5"):
                    refused.append((address, reply))
                else:
                    later.append(address)
                    reason = reply
            if ended.over:
                client.close()
                client = Client(place()) if waiting else None
        if client:
            client.quit()
    except Broken as broken:
        if broken.permanent:
            refused += [(address, str(broken)) for address in waiting]
        else:
            later += waiting
            reason = str(broken)
    except ValueError as error:
        raise Exit(EX_CONFIG, f"SESRELAY_SUBMIT: {error}") from error
    if later:
        from sesrelay.sendmail.maildrop import drop

        later, kept = drop(envelope, later, content)
        if later:
            reason = f"{reason} ({kept})"
    return refused, later, reason


def _report(name: str, refused: list[tuple[str, str]], later: list[str], reason: str) -> int:
    code = EX_OK
    for address, reply in refused:
        complain(f"{name}: not sent to {_shown(address)}: {reply}")
        code = code or meaning(reply)
    if later:
        complain(f"{name}: not sent to {', '.join(map(_shown, later))}, try again later: {reason}")
        code = code or EX_TEMPFAIL
    return code


def _shown(address: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in address)
