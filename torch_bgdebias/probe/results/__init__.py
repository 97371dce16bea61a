"""The measured numbers: per-image results, their summary, comparisons and file formats. No markup."""
