"""Figures that judge a trained equation."""
