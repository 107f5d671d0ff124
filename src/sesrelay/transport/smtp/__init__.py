"""Out by another relay, SES's own SMTP endpoint among them."""
