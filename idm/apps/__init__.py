"""The applications: the command line, photographs and videos, the web page."""
