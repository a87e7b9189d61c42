"""The run directory: where it is, how it is written, how it is read, and one summary row a sample."""

from hyperlax.results.directory import create_run_directory
from hyperlax.results.progress import Progress
from hyperlax.results.reader import Run, load_policy_arrays, load_run, read_summary
from hyperlax.results.summary import STATUSES, summarise
from hyperlax.results.writer import RunWriter

__all__ = [
    "STATUSES",
    "Progress",
    "Run",
    "RunWriter",
    "create_run_directory",
    "load_policy_arrays",
    "load_run",
    "read_summary",
    "summarise",
]
