"""Glow: a multi-scale flow for images, in layers of its own."""
