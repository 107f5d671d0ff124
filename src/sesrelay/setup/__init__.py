"""What people run before and around the daemon: domains and their DNS records, requests to AWS, files of secrets."""
