"""Runs beside each other: compared in a table, shown on a page."""
