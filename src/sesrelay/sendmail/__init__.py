"""sendmail(8): hands a message from a program to the relay over a socket."""

import sys


def main() -> int:
    """Say that this is not built yet."""
    sys.stderr.write("sesrelay-sendmail: not built yet\n")
    return 69
