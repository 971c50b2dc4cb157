"""The arrows, in flow order: ingest embed assign predict annotate snapshot train evaluate promote export.

One file per arrow; arrows never call each other. `loop.due` asks the database which of them has work.
"""
