"""Django's EmailMessage over one connection; `project` is the text of a settings.py."""

import base64
import json
import os
import smtplib
import ssl
import sys

from django.conf import settings
from django.core import mail as django_mail

asked = json.load(sys.stdin)
given = asked["settings"]
if given["ca"]:
    os.environ["SSL_CERT_FILE"] = given["ca"]  # Django has no setting for it
chosen = {
    "EMAIL_HOST": given["host"],
    "EMAIL_PORT": given["port"],
    "EMAIL_HOST_USER": given["user"] or "",
    "EMAIL_HOST_PASSWORD": given["password"] or "",
    "EMAIL_USE_TLS": given["tls"] == "starttls",
    "EMAIL_USE_SSL": given["tls"] == "implicit",
    "EMAIL_TIMEOUT": 20,
}
if asked.get("project"):
    chosen = {}
    exec(asked["project"], {}, chosen)
settings.configure(**chosen)
told: list[dict[str, object]] = []
with django_mail.get_connection() as connection:
    for mail in asked["mails"]:
        message = django_mail.EmailMessage(
            mail["subject"], mail["text"], mail["sender"] or None, mail["to"], cc=mail["cc"], bcc=mail["bcc"], connection=connection
        )
        if mail["attachment"]:
            message.attach(mail["attachment"]["name"], base64.b64decode(mail["attachment"]["base64"]))
        try:
            message.send()
            told.append({"ok": True})
        except (smtplib.SMTPException, ssl.SSLError) as error:
            told.append({"ok": False, "error": str(error)})
json.dump(told, sys.stdout)
