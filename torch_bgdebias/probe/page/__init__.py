"""The report's web page: templates, and what they are given."""
