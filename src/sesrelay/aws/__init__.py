"""AWS apart from sending: the boto3 session with its credentials and endpoints, and what the account allows."""
