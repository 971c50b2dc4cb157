"""Masks, boxes and points as numbers. Nothing here knows a model, a database or a file."""
