"""Words that only templates need."""
