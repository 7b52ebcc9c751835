"""An embedded PostgreSQL server, which Portal uses unless DATABASE_URL is set."""
