"""codeintel_rev: ask a code base a question, get the right lines and the reason for each of them."""
