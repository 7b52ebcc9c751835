"""Each page: that it works, whom it refuses and how, and what htmx gets of it. Operations are tested elsewhere."""
