"""What connections to mail hosts and to SES share: how one is reached, how its caller waits, and how a failure is told."""
