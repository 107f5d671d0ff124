"""sendmail(8): hands a message from a program to the relay over a socket.

Invariant: the standard library alone, and little of it (no `socket`, `re`, `email`, `argparse`): a program that sends one
message waits for the interpreter and hardly longer. Nothing else of sesrelay, so that a system's own Python runs it.
Invariant: no option names a file; the only files written are an unnamed one for large messages, and the maildrop's.

Source: sendmail(8), sendmail(1) of Postfix, sysexits.h.
"""

# ruff: noqa: PLC0415 - a module is loaded by the runs that want it

import sys

from sesrelay.sendmail.exits import EX_OK, EX_SOFTWARE, EX_TEMPFAIL, Exit, complain


def main() -> int:
    """Be sendmail, mailq or newaliases, by the name called; return the exit code."""
    name = sys.argv[0].rpartition("/")[2]
    try:
        return _run(name, sys.argv[1:])
    except Exit as end:
        code, text = end.code, end.text
    except KeyboardInterrupt:
        code, text = EX_TEMPFAIL, "interrupted"
    except OSError as error:
        code, text = EX_TEMPFAIL, str(error)
    except Exception as error:  # a bug: one line instead of a traceback in a web server's log
        code, text = EX_SOFTWARE, f"internal error: {type(error).__name__}: {error}"
    complain(f"{name}: {text}")
    return code


def _run(name: str, arguments: list[str]) -> int:
    from sesrelay.sendmail.options import ALIASES, FLUSH, QUEUE, SESSION, parse

    options = parse(arguments, {"mailq": QUEUE, "newaliases": ALIASES}.get(name))
    if options.mode in (ALIASES, FLUSH):
        return EX_OK  # aliases are local.aliases of the configuration, and the queue needs nobody to run it
    if options.mode == QUEUE:
        from sesrelay.sendmail.queue import show

        return show()
    if options.mode == SESSION:
        from sesrelay.sendmail.session import relay

        return relay()
    from sesrelay.sendmail.submission import submit

    return submit(options, name)
