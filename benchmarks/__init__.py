"""Measurements of the platform itself; nothing here is imported by it."""
