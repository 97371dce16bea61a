"""One model on batches: loading them, choosing backgrounds, measuring, keeping examples."""
