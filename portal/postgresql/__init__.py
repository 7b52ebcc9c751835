"""Django's PostgreSQL backend, extended to keep the sessions of the web server open between requests."""
