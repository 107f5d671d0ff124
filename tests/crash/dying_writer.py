"""The writer of a relay that dies with it, the rows of the n-th C written and not committed: `python dying_writer.py N …`."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count
from typing import Any

from sesrelay.spool import bulk
from sesrelay.spool.writer import child

if __name__ == "__main__":
    nth, *words = sys.argv[1:]
    real, calls = bulk.TOGETHER[bulk.Settle], count(1)

    def and_die(*args: Any, **kwargs: Any) -> Any:
        settled = real(*args, **kwargs)
        if next(calls) == int(nth):
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return settled

    bulk.TOGETHER[bulk.Settle] = and_die
    child.main(words)
