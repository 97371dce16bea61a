"""Screening: batches in, verdicts out, on which pictures show what no background may show."""
