"""The bottom layer: plain Python that every part of Gatehouse shares. No models, no Django."""

__version__ = "0.1.0"
