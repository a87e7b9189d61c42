"""``python -m hyperlax`` is the command ``hyperlax``."""

from __future__ import annotations

from hyperlax.cli import program

if __name__ == "__main__":
    program()
