"""Tables and pictures of results; reads `hyperlax.results` and nothing else."""

from hyperlax.analysis.circuits import plot_expressibility, plot_gradients
from hyperlax.analysis.plots import plot_sweep
from hyperlax.analysis.tables import important_hyperparameters, top_table

__all__ = ["important_hyperparameters", "plot_expressibility", "plot_gradients", "plot_sweep", "top_table"]
