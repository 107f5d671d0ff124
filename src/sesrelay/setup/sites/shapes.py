"""What kind of secret a text is, by its shape alone: people mix up access keys and SMTP credentials.

Source: AWS guide «Obtaining Amazon SES SMTP credentials»: an SMTP password is the version octet 0x04 and an HMAC-SHA256, in
base64, 44 characters; a secret access key has 40.
"""

from __future__ import annotations

import re

from sesrelay.aws.smtp_password import is_smtp_password

_SECRET_KEY = re.compile(r"[A-Za-z0-9/+]{40}\Z")


def is_secret_key(text: str) -> bool:
    """Tell whether `text` looks like a secret access key."""
    return _SECRET_KEY.match(text) is not None


def looks_secret(text: str) -> bool:
    """Tell whether `text` looks like a secret of either kind."""
    return is_secret_key(text) or is_smtp_password(text)


def wrong_secret(text: str, *, smtp: bool) -> str | None:
    """Return what is wrong with a secret where `smtp` says which kind is meant; None: nothing that shows. Never repeats it."""
    if smtp and is_secret_key(text):
        return (
            "this looks like a secret access key; an SMTP password is needed, which is made from it "
            "(sesrelay smtp-password --region REGION, the key on stdin)"
        )
    if not smtp and is_smtp_password(text):
        return (
            "this looks like an SMTP password of SES, which its API does not accept; a secret access key is needed "
            "(or use the options for SMTP credentials, with its user name: see --help)"
        )
    return None
