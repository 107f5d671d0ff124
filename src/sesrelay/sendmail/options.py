"""The command line, as getopt reads it for Postfix's sendmail(1): options first, flags combine, `--` ends them.

Invariant: what would read or write a file, or start another program's work, is refused: -C -X -D, -O but for two names, -be,
-bt, -bd, ...

Source: sendmail(1) of Postfix; RFC 3461 (-N, -R, -V).
"""

from sesrelay.sendmail.addresses import parse as parse_addresses
from sesrelay.sendmail.addresses import xtext
from sesrelay.sendmail.exits import EX_USAGE, Exit

MESSAGE, SESSION, QUEUE, ALIASES, FLUSH = range(5)

_MODES = {"m": MESSAGE, "s": SESSION, "p": QUEUE, "i": ALIASES}
_VALUED = "ABFLNORVbefhopr"  # take the rest of the argument, or the next argument
_ATTACHED = "q"  # take the rest of the argument only
_FLAGS = "GIUcimntvx"  # -G -U -c -m -n -v -x are taken and mean nothing here
_REFUSED = "CDX"
_LONG = ("deliverymode", "errormode")  # of -O: what -od and -oe say, and PHP programs, Bugzilla and RT say so
_NO_FILE = "refused: no option reads or writes a file here"
_NOTIFY = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
_ENVID_MAX = 100  # octets as xtext (RFC 3461 §4.4: the parameter may have up to 100 characters)


class Options:
    """What the command line said. `sender` None: the user's own; empty: the null sender."""

    __slots__ = ("dot_ends", "envid", "from_header", "full_name", "mode", "notify", "recipients", "ret", "sender")

    def __init__(self) -> None:
        self.mode = MESSAGE
        self.dot_ends = True
        self.from_header = False
        self.sender: str | None = None
        self.full_name = ""
        self.notify = ""
        self.ret = ""
        self.envid = ""
        self.recipients: list[str] = []


def parse(arguments: list[str], mode: int | None = None) -> Options:
    """Return what `arguments` ask for; `mode` is the one that the program's name gives. Raises: Exit"""
    options = Options()
    at = 0
    while at < len(arguments) and len(arguments[at]) > 1 and arguments[at][0] == "-":
        word = arguments[at]
        at += 1
        if word == "--":
            break
        n = 1
        while n < len(word):
            letter = word[n]
            n += 1
            if letter in _VALUED:
                value = word[n:]
                if n == len(word):
                    if at == len(arguments):
                        raise Exit(EX_USAGE, f"option -{letter} wants a value")
                    value = arguments[at]
                    at += 1
                _valued(options, letter, value)
                break
            if letter in _ATTACHED:
                options.mode = FLUSH
                break
            if letter in _REFUSED or letter not in _FLAGS:
                raise Exit(EX_USAGE, f"option -{letter} is {_NO_FILE if letter in _REFUSED else 'not known'}")
            _flag(options, letter)
    if mode is not None:
        options.mode = mode
    for argument in arguments[at:]:
        options.recipients += parse_addresses(argument)
    return options


def _flag(options: Options, letter: str) -> None:
    if letter == "i":
        options.dot_ends = False
    elif letter == "t":
        options.from_header = True
    elif letter == "I":
        options.mode = ALIASES


def _valued(options: Options, letter: str, value: str) -> None:
    if letter in "fr":
        options.sender = _sender(letter, value)
    elif letter == "F":
        options.full_name = value
    elif letter == "o":
        if value == "i":  # the others say how to deliver and what to do about errors: they are the daemon's
            options.dot_ends = False
    elif letter == "O":
        if value.partition("=")[0].lower() not in _LONG:
            raise Exit(EX_USAGE, f"option -O is {_NO_FILE}, but for DeliveryMode and ErrorMode, which mean nothing")
    elif letter == "b":
        if value not in _MODES:
            raise Exit(EX_USAGE, f"option -b{value} is refused: only -bm, -bs, -bp and -bi are known")
        options.mode = _MODES[value]
    elif letter == "B":
        if value.upper() not in ("7BIT", "8BITMIME"):  # what the content is shows when it is read
            raise Exit(EX_USAGE, "option -B wants 7BIT or 8BITMIME")
    elif letter == "N":
        options.notify = _notify(value)
    elif letter == "R":
        options.ret = value.upper()
        if options.ret not in ("FULL", "HDRS"):
            raise Exit(EX_USAGE, "option -R wants full or hdrs")
    elif letter == "V":
        if not value.isascii() or not value.isprintable() or len(xtext(value)) > _ENVID_MAX:
            raise Exit(EX_USAGE, f"option -V wants at most {_ENVID_MAX} printable ASCII characters; blank, + and = count as three")
        options.envid = value


def _sender(letter: str, value: str) -> str:
    found = parse_addresses(value)
    if len(found) > 1 or (not found and value.strip() not in ("", "<>")):
        raise Exit(EX_USAGE, f"option -{letter} wants one address")
    return found[0] if found else ""


def _notify(value: str) -> str:
    words = value.upper().replace(" ", "").split(",")
    if not all(word in _NOTIFY for word in words) or ("NEVER" in words and len(words) > 1):
        raise Exit(EX_USAGE, "option -N wants never, or any of success, failure, delay with commas")
    return ",".join(words)
