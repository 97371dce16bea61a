"""Making masks for pictures that have none: one protocol, and what is behind it."""
