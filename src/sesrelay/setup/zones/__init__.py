"""The DNS records of sender domains: wanted, found, compared, and put into a zone."""
