"""What users run: the command line, photographs and videos, the web page."""
