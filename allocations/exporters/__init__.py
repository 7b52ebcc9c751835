"""Export allocations in the formats of other programs, with one module for each format."""

from . import prometheus, traefik

__all__ = ["prometheus", "traefik"]
