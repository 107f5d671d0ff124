"""sesrelay: a local mail relay that routes by the sender's domain to Amazon SES, another relay, or the recipient."""

__version__ = "0.1.0"
