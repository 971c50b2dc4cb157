"""Files in and out: one module for each format, each streamed, none trusted."""
