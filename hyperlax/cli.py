"""``python hyperlax/cli.py …`` in a checkout, as hyperlax-quantum is called, is the command ``hyperlax``.

To Python `hyperlax.cli` is the folder beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from hyperlax.cli import program

    program()
