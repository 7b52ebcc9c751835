"""The pages. Each view parses, calls one operation or reads one queryset, and renders; no rule and no write is here."""
