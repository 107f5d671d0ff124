"""The operators' desk: the documents of the public contract, and the socket by which verbs reach a running daemon."""
