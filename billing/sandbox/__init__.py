"""A local double of Lemon Squeezy for development and tests. It shares no code with what talks to it."""
