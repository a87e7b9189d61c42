"""Tables and pictures of results; reads `hyperlax.results` and nothing else."""

from hyperlax.analysis.circuits import plot_expressibility, plot_gradients
from hyperlax.analysis.importance import importances
from hyperlax.analysis.plots import plot_sweep
from hyperlax.analysis.report import write_run_report
from hyperlax.analysis.tables import important_hyperparameters, top_table

__all__ = [
    "importances",
    "important_hyperparameters",
    "plot_expressibility",
    "plot_gradients",
    "plot_sweep",
    "top_table",
    "write_run_report",
]
