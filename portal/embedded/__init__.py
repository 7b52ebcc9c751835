"""A PostgreSQL of Portal's own, for machines on which nobody set one up."""
