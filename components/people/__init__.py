"""People as the oracle: what they are asked, what they answered, and how far they agree."""
