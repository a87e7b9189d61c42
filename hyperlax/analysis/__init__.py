"""Tables and pictures of results; reads `hyperlax.results` and nothing else."""

from hyperlax.analysis.plots import plot_sweep
from hyperlax.analysis.tables import important_hyperparameters, top_table

__all__ = ["important_hyperparameters", "plot_sweep", "top_table"]
