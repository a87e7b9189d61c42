"""Benchmarks: grids of recipes and environments, run here, on a SLURM cluster or by Ray."""
