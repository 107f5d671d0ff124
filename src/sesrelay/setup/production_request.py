"""What AWS wants to read before it takes an account out of the sandbox, from answers to its questions.

Source: Amazon SES developer guide, "Request production access"; API v2 PutAccountDetails (its limits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

TEXT_MAX = 5000  # characters of UseCaseDescription
WEBSITE_MAX = 1000
CONTACTS_MAX = 4

MailType = Literal["transactional", "marketing"]


@dataclass(frozen=True, slots=True)
class UseCase:
    """The answers, in the words of who asks. Units: `daily` recipients at most in a day."""

    mail_type: MailType
    website: str
    sends: str
    recipients: str
    bounces: str
    unsubscribe: str
    daily: int
    contacts: tuple[str, ...] = ()
    language: Literal["EN", "JA"] = "EN"
    domains: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the use case as one text. Raises: ValueError where it is too long"""
        paragraphs = [
            f"What we send: {self.sends}",
            f"Who receives it, and how we got the addresses: {self.recipients}",
            f"How bounces and complaints are handled: {self.bounces}",
            f"How recipients unsubscribe: {self.unsubscribe}" if self.unsubscribe else "",
            f"How much: at most {self.daily:,} recipients a day.",
            f"Sending domains: {', '.join(self.domains)}." if self.domains else "",
            "Mail leaves through a relay that keeps to the account's sending rate and daily quota.",
        ]
        text = "\n\n".join(paragraph.strip() for paragraph in paragraphs if paragraph)
        if len(text) > TEXT_MAX:
            raise ValueError(f"the text has {len(text)} characters, and AWS accepts at most {TEXT_MAX}: shorten it")
        return text

    def details(self) -> dict[str, Any]:
        """Return the members of PutAccountDetails. Raises: ValueError for answers that AWS does not take"""
        if not self.website.startswith(("http://", "https://")) or len(self.website) > WEBSITE_MAX:
            raise ValueError(f"{self.website!r} is not the URL of a web site (use one like https://example.com)")
        if len(self.contacts) > CONTACTS_MAX:
            raise ValueError(f"AWS accepts at most {CONTACTS_MAX} contact addresses")
        if self.mail_type == "marketing" and not self.unsubscribe:
            raise ValueError("marketing mail needs a way to unsubscribe (--unsubscribe)")
        told: dict[str, Any] = {
            "MailType": self.mail_type.upper(),
            "WebsiteURL": self.website,
            "ContactLanguage": self.language,
            "UseCaseDescription": self.text(),
        }
        return told | ({"AdditionalContactEmailAddresses": list(self.contacts)} if self.contacts else {})
