"""The limit that tests of long input have counts their own work, and no time that others took."""

from __future__ import annotations

import subprocess
import sys

import pytest

import processor_time


def test_work_is_counted() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"took 0\.1 s"), processor_time.limited(0.1):
        while True:
            pass


def test_waiting_is_not() -> None:
    with processor_time.limited(0.2):
        subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
