"""What TLS a mail host must show: policies, MTA-STS, DANE, and the reports of how it went."""
