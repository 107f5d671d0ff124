"""Secrets as people give them to set-up verbs: by the name of a file.

Invariant: a secret is never an argument, where other users of the machine could read it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sesrelay.setup.sites.site import Secret


def secret_from(file: str, *, smtp: bool, kept_as: str | None) -> Secret:
    """Return where the secret is. `smtp`: an SMTP password is meant, else a secret access key.

    `kept_as`: the name that a secret from stdin gets; None: only files are taken. Raises: click.UsageError
    """
    from sesrelay.setup.sites.shapes import looks_secret, wrong_secret
    from sesrelay.setup.sites.site import Secret

    if file == "-" and kept_as is not None:
        text = sys.stdin.readline().strip()
        found = Secret(kept_as, text)
    else:
        path = Path(file).absolute()
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if looks_secret(file):  # not repeated, then
                raise click.UsageError(
                    "this is the secret itself; give the name of a file that contains it: (umask 077; cat > FILE)"
                ) from None
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise click.UsageError(f"{file} cannot be read: {why}") from None
        found = Secret(str(path))
    wrong = "empty" if not text else wrong_secret(text, smtp=smtp)
    if wrong:
        raise click.UsageError(f"the secret {'on stdin' if file == '-' else f'in {file}'}: {wrong}")
    return found
