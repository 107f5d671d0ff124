"""How TXT values are written for master files and for Route 53, and read from there."""

from __future__ import annotations

from typing import Any

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesrelay.setup.zones.formats import quoted, unquoted


@given(st.text(max_size=600))
def test_dnspython_reads_what_is_written_in_strings_of_255_octets(text: str) -> None:
    parsed: Any = dns.rdata.from_text("IN", "TXT", quoted(text))
    assert b"".join(parsed.strings) == text.encode()
    assert all(len(string) == 255 for string in parsed.strings[:-1])


@given(st.text(max_size=600), st.booleans())
def test_what_is_written_is_read(text: str, octal: bool) -> None:
    written = quoted(text, octal=octal)
    assert (written.isascii(), unquoted(written, octal=octal)) == (True, text)


def test_octets_are_octal_at_route53_and_decimal_in_master_files() -> None:
    assert quoted('ä"\\') == r'"\195\164\"\\"'
    assert quoted('ä"\\', octal=True) == r'"\303\244\"\\"'


@pytest.mark.parametrize(
    ("written", "octal", "text"),
    [
        (r'"\303" "\244"', True, "ä"),  # over the border of two strings
        (r'"\195\164"', False, "ä"),
        (r'"gr\303\274n; \"a\" \\052 \052"', True, 'grün; "a" \\052 *'),
        (r'"\303"', True, "\N{REPLACEMENT CHARACTER}"),
        (r'"\999"', False, "999"),
        (r'"\189"', True, "189"),
        ('"ä"', True, "ä"),
        ("as it is", True, "as it is"),
    ],
)
def test_escapes_are_octets_and_these_utf_8(written: str, octal: bool, text: str) -> None:
    assert unquoted(written, octal=octal) == text
