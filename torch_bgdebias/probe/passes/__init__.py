"""One model on batches: loading, choice of backgrounds, measurement, examples."""
