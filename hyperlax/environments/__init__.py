"""Environments: one protocol, an adapter a suite, and names for all of them."""

from hyperlax.environments.protocol import Box, Discrete, Environment, Transition
from hyperlax.environments.registry import make, names, register

__all__ = ["Box", "Discrete", "Environment", "Transition", "make", "names", "register"]
