"""docs/testing.md is run: its conftest.py and its test, in a pytest of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_what_the_page_shows_passes(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert [name for name, _ in blocks] == ["conftest.py", "test_mail.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_every_fault_is_on_the_page() -> None:
    from sesrelay.testing.ses_faults import AFTER, BEFORE

    page = PAGE.read_text(encoding="utf-8")
    for name in (*BEFORE, *AFTER):
        assert f"`{name}`" in page, name
