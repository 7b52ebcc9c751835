"""The registry in the words of other programs, one module per format."""

from . import prometheus, traefik

__all__ = ["prometheus", "traefik"]
