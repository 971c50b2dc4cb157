"""One module per theme; each paints a canvas from a random generator and nothing else."""
