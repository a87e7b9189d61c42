"""Searches: which configuration a free lane takes next, and which are not worth going on with."""

import importlib.util

from hyperlax.errors import UserError

if importlib.util.find_spec("optuna") is None:
    raise UserError("a search needs the package optuna: pip install 'hyperlax[search]'")
