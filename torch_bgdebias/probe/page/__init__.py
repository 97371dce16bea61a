"""The report's web page: templates and the data that they show."""
