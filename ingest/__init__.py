"""What happened, what it cost, what it adds up to, and what limits it."""
