"""How the program ends: the codes of sysexits.h, and which of them an SMTP reply means.

Source: sysexits.h; RFC 3463.
"""

import sys

EX_OK = 0
EX_USAGE = 64
EX_DATAERR = 65
EX_NOUSER = 67
EX_NOHOST = 68
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_NOPERM = 77
EX_CONFIG = 78

_BY_STATUS = {
    "5.1.1": EX_NOUSER,
    "5.1.2": EX_NOHOST,
    "5.1.3": EX_DATAERR,
    "5.1.6": EX_NOUSER,
    "5.1.7": EX_DATAERR,
    "5.1.8": EX_DATAERR,
    "5.1.10": EX_NOHOST,
    "5.2.3": EX_DATAERR,
    "5.3.4": EX_DATAERR,
}
_BY_SUBJECT = {"5.6": EX_DATAERR, "5.7": EX_NOPERM}
_BY_CODE = {"550": EX_NOUSER, "551": EX_NOUSER, "552": EX_DATAERR, "553": EX_DATAERR}


class Exit(Exception):
    """The program ends with `code` and says `text` on stderr."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def complain(text: str) -> None:
    """Say a line on stderr, if there is one and somebody reads it."""
    try:
        if sys.stderr is not None:  # closed by the caller; the descriptor may be something else by now
            sys.stderr.write(f"{text}\n")
    except OSError:
        sys.stderr = None  # so that the interpreter does not try again at its end


def meaning(reply: str) -> int:
    """Return the exit code for a negative reply such as `550 5.7.1 No`: what is not permanent may be tried again."""
    if not reply.startswith("5"):
        return EX_TEMPFAIL
    status = reply[4:].partition(" ")[0]
    if not (status.startswith("5.") and status.count(".") == 2):
        return _BY_CODE.get(reply[:3], EX_UNAVAILABLE)
    return _BY_STATUS.get(status) or _BY_SUBJECT.get(status.rpartition(".")[0]) or EX_UNAVAILABLE
