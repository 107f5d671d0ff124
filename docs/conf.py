"""How the pages become HTML and man pages: `make docs`. One source for both."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from sesrelay import __version__

project = "sesrelay"
author = "The sesrelay authors"
release = version = __version__
extensions = ["myst_parser", "sphinx_click"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
# Pages link to files of the repository, which the HTML has not.
suppress_warnings = ["myst.xref_missing"]

html_theme = "furo"
html_title = f"sesrelay {__version__}"
html_show_sphinx = False

man_pages = [
    ("verbs", "sesrelay", "a local mail relay to Amazon SES, other relays and mail exchangers", author, 1),
    ("configuration", "sesrelay.yaml", "configuration of sesrelay", author, 5),
    ("sendmail", "sesrelay-sendmail", "hand a message to the relay", author, 8),
]
man_show_urls = True


def setup(app):
    """Take the help of verbs for text: `*@example.com` is an address there, and no emphasis."""
    for part in ("description", "usage", "options", "arguments", "envvars", "epilog"):
        app.connect(f"sphinx-click-process-{part}", lambda _app, _ctx, lines: _as_text(lines))


def _as_text(lines):
    lines[:] = [line.replace("*", "\\*") for line in lines]
