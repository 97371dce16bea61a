"""Batches in, verdicts out: which pictures show what a background must not show. Knows no bank."""
