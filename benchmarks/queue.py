"""Measures what a long queue costs: two relays side by side, one whose queue is empty and one with a million messages.

Ratios are of medians of rounds that alternate between both. Half of what waits stands behind a next hop that is down, half
in the very lane that is measured, due tomorrow.
"""

from __future__ import annotations

if __name__ == "queue":  # a neighbour's `import queue` finds this file first, and means the standard library's
    import importlib.util
    import os
    import sys
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("queue", Path(os.__file__).with_name("queue.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["queue"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["queue"])
else:
    import sys

    from long_queue import main

    sys.exit(main())
