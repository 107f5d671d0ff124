"""Sending through Amazon SES: header rules, signed calls over kept connections, and what each answer means."""
