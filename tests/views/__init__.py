"""Tests of the pages: their content, their refusals and what htmx receives. The operations are tested elsewhere."""
