"""The pages of the dashboard.

A view reads the request, calls one operation or reads one queryset, and renders the result. It holds no rules, and it
writes nothing itself.
"""
