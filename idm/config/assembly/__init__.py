"""Where configuration and code meet: each section becomes the object it describes. Nothing else imports both."""
