"""Tight-binding models that have the symmetry of their structure and no other (section 2.7)."""

from altermag.tb.model import Model

__all__ = ["Model"]
