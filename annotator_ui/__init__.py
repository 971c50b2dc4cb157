"""The page people annotate in, and the thin Flask app behind it: views make one call into engine.pipeline."""
