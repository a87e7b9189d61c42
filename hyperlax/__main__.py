"""``python -m hyperlax`` is the command ``hyperlax``."""

from __future__ import annotations

import sys

from hyperlax.cli import main

if __name__ == "__main__":
    sys.exit(main())
