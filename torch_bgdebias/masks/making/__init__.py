"""Makes masks for pictures that have none: one protocol and its implementations."""
