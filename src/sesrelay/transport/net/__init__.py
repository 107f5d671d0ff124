"""What connections to mail hosts and to SES share: how one is reached, and how its caller waits."""
