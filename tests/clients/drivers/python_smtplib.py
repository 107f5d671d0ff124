"""smtplib with an EmailMessage, the refusals of single recipients counted as failures."""

import base64
import json
import smtplib
import ssl
import sys
from email.message import EmailMessage

asked = json.load(sys.stdin)
given = asked["settings"]
context = ssl.create_default_context(cafile=given["ca"])
if given["tls"] == "implicit":
    smtp: smtplib.SMTP = smtplib.SMTP_SSL(given["host"], given["port"], context=context, timeout=20)
else:
    smtp = smtplib.SMTP(given["host"], given["port"], timeout=20)
told: list[dict[str, object]] = []
with smtp:
    if given["tls"] == "starttls":
        smtp.starttls(context=context)
    if given["user"] is not None:
        smtp.login(given["user"], given["password"])
    for mail in asked["mails"]:
        message = EmailMessage()
        message["From"], message["Subject"], message["To"] = mail["sender"], mail["subject"], ", ".join(mail["to"])
        for name in ("cc", "bcc"):
            if mail[name]:
                message[name] = ", ".join(mail[name])
        message.set_content(mail["text"])
        if mail["attachment"]:
            content = base64.b64decode(mail["attachment"]["base64"])
            message.add_attachment(content, "application", "octet-stream", filename=mail["attachment"]["name"])
        options = {}
        if mail["dsn"]:
            options = {"mail_options": ("RET=HDRS", "ENVID=order-17"), "rcpt_options": (f"NOTIFY={mail['dsn']}",)}
        try:
            refused = smtp.send_message(message, **options)
            told.append({"ok": not refused, "error": str(refused)})
        except smtplib.SMTPException as error:
            told.append({"ok": False, "error": str(error)})
json.dump(told, sys.stdout)
