"""The UltraLink notebook kit: what must be right and fast; the notebooks hold the method."""

__version__ = "0.2.0"
