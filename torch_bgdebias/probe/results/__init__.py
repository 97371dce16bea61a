"""What was measured, as numbers: images, their summary, comparisons, and how they are written. No markup."""
