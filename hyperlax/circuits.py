"""The circuits in recipes and in runs: what :mod:`hyperlax.quantum.drawing` draws and what ``export`` exports."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hyperlax import runs
from hyperlax.algorithms.shape import Role
from hyperlax.algorithms.statistics import LIMIT, RunningStatistics
from hyperlax.api import restore_policy
from hyperlax.engine import devices
from hyperlax.environments import Environment, make
from hyperlax.errors import UserError, unknown
from hyperlax.networks import NETWORKS
from hyperlax.networks.padding import nested_dict
from hyperlax.networks.pqc import CircuitFamily
from hyperlax.quantum.circuit import Circuit
from hyperlax.quantum.drawing import count_gates, depth
from hyperlax.quantum.export import TrainedCircuit, around, to_openqasm, to_script
from hyperlax.recipes import Recipe, get_recipe
from hyperlax.results.storage import write_atomic
from hyperlax.spaces.hyperparameters import replace

EXPORTS = ("openqasm", "pennylane")


@dataclass(frozen=True)
class NetworkCircuit:
    """The circuit of one network of a recipe.

    Attributes:
        name: of the network: ``actor``, ``critic``.
        family: its hyperparameters.
        circuit: for the inputs that the algorithm gives this network.
        head_parameters: trainable numbers of the dense layer behind it.
        scale_parameters: trainable numbers that expectation values are multiplied by.
        copies: sets of parameters that are trained together: 2 for twin critics.
    """

    name: str
    family: CircuitFamily
    circuit: Circuit
    head_parameters: int
    scale_parameters: int
    copies: int

    def describe(self) -> list[tuple[str, str]]:
        """Returns what there is to count, as pairs of a name and a text."""
        circuit = self.circuit
        layers = getattr(self.family, "n_layers", None)
        gates = count_gates(circuit)
        angles = [gate.angle for gate in circuit.gates if gate.angle is not None]
        used = {number for angle in angles for number in (angle.bias, angle.scale) if number is not None}
        parts = [
            f"{circuit.num_params} of the circuit"
            + (f" ({len(used)} of them in its angles)" if len(used) < circuit.num_params else ""),
            *([f"{self.scale_parameters} that scale its outputs"] if self.scale_parameters else []),
            f"{self.head_parameters} of the dense head",
        ]
        copies = f"; {self.copies} such networks are trained" if self.copies > 1 else ""
        return [
            ("qubits", str(circuit.num_qubits)),
            ("layers", f"depth {depth(circuit)}" if layers is None else f"{layers}, depth {depth(circuit)}"),
            ("gates", f"{sum(gates.values())}: {', '.join(f'{n} {kind}' for kind, n in gates.items())}"),
            ("parameters", f"{', '.join(parts)}{copies}"),
            ("observables", ", ".join(circuit.observables)),
        ]


def circuit_of(
    recipe: str | Recipe,
    env: str | Environment,
    network: str | None = None,
    overrides: Mapping[str, object] | None = None,
) -> NetworkCircuit:
    """Returns the circuit that a recipe has for an environment.

    Args:
        recipe: a name or a :class:`~hyperlax.recipes.Recipe`.
        env: a name or an :class:`~hyperlax.environments.Environment`.
        network: ``actor`` or ``critic``; the algorithm's first by default.
        overrides: hyperparameters that differ from the recipe's defaults for the environment.

    Raises:
        UserError: a name or a value is not accepted, or that network is no circuit.
    """
    devices.configure()
    recipe, env = get_recipe(recipe), make(env) if isinstance(env, str) else env
    hyperparams = replace(recipe.defaults_for(env.name), overrides or {})
    runs.check_actions(recipe, env)
    hyperparams.check(env)
    role = _role(hyperparams.shape(env).roles, network, f"recipe {recipe.name}")
    family = _family(hyperparams, role.name, f"recipe {recipe.name}")
    circuit = family.circuit(role.networks.num_inputs)
    observables, outputs = len(circuit.observables), hyperparams.trained_outputs(role)
    scales = observables if family.scale_outputs else 0
    return NetworkCircuit(role.name, family, circuit, (observables + 1) * outputs, scales, role.copies)


def load_circuit(
    path: str | os.PathLike[str],
    sample_id: int,
    seed: int | None = None,
    network: str | None = None,
    env: Environment | None = None,
) -> TrainedCircuit:
    """Returns the network of a saved policy as a circuit with what is around it.

    Args:
        path: a run directory.
        sample_id: of the sample.
        seed: which repetition; the first that was saved if None.
        network: the one that acts, the only one that is saved; None for it.
        env: the environment it was trained on, if that is not one that :func:`hyperlax.make_env` knows.

    Raises:
        UserError: there is no such policy, or its network is no circuit.
    """
    restored = restore_policy(path, sample_id, seed, env)
    agent, hyperparams, details = restored.agent, restored.hyperparams, restored.details
    where = f"'{os.fspath(path)}' sample {sample_id}"
    role = _role(agent.shape.roles, network or agent.ACTING, where)
    if role.name != agent.ACTING:
        raise UserError(f"{where}: its {role.name} was not saved; accepted is {agent.ACTING}, the network that acts")
    family = _family(hyperparams, role.name, where)
    tree = nested_dict(restored.arrays)
    torso, head, size = tree[role.name]["torso"], tree[role.name]["head"], role.networks.num_inputs
    with jax.enable_x64(True):  # what comes out stands for the same numbers, not for rounded ones
        kernel = np.asarray(agent.meant(np.asarray(head["kernel"], np.float64), restored.lane))
        bias = np.asarray(agent.meant(np.asarray(head["bias"], np.float64)[:, None], restored.lane))[:, 0]
        saved = {name: np.asarray(array, np.float64) for name, array in tree["statistics"].items()}
        statistics = RunningStatistics.of(saved)
        deviation = np.asarray(statistics.deviation())[:size]
    normalised = bool(hyperparams.normalize_observations)
    return TrainedCircuit(
        name=role.name,
        origin=f"{restored.info['recipe']} on {restored.env.name}, sample {sample_id}, seed {details['seed']} of "
        f"{restored.path}",
        meaning=agent.meaning,
        circuit=family.circuit(size),
        params=np.asarray(torso["circuit"], np.float64),
        observation_shape=tuple(restored.env.observation_shape),
        kernel=kernel,
        bias=bias,
        output_scale=np.asarray(torso["output_scale"], np.float64) if family.scale_outputs else None,
        mean=np.asarray(statistics.mean)[:size] if normalised else None,
        deviation=deviation if normalised else None,
        limit=LIMIT if normalised else math.inf,
    )


def export_circuit(trained: TrainedCircuit, file_format: str = "all") -> dict[str, str]:
    """Returns the files of a trained circuit: their names and texts.

    Args:
        trained: see :func:`load_circuit`.
        file_format: ``openqasm``, ``pennylane`` or ``all``.

    Raises:
        UserError: the format is not known, or a trained number is not finite.
    """
    if file_format not in (*EXPORTS, "all"):
        raise unknown("format", file_format, (*EXPORTS, "all"))
    texts = {}
    if file_format in ("openqasm", "all"):
        texts[f"{trained.name}.qasm"] = to_openqasm(trained.circuit, trained.params, around(trained))
    if file_format in ("pennylane", "all"):
        texts[f"{trained.name}_pennylane.py"] = to_script(trained)
    return texts


def write_files(files: Mapping[Path, bytes], overwrite: bool = False) -> None:
    """Writes files, whole or not at all, in folders that are made where needed.

    Raises:
        UserError: one is there and ``overwrite`` is not asked for, so that none is written; or it cannot be written.
    """
    for file in files:
        if file.is_dir():
            raise UserError(f"{file}: is a folder")
        if file.exists() and not overwrite:
            raise UserError(f"{file}: exists already; overwrite=True (--overwrite) replaces it")
    for file, content in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, content)
        except OSError as error:
            raise UserError(f"{file}: cannot be written ({error.strerror})") from error


def _role(roles: tuple[Role, ...], network: str | None, where: str) -> Role:
    """Returns a network by name, the first without one."""
    known = {role.name: role for role in roles}
    if network is None:
        return roles[0]
    if network not in known:
        raise unknown("network", network, known, hint=f"({where})")
    return known[network]


def _family(hyperparams: Any, name: str, where: str) -> CircuitFamily:
    family = getattr(hyperparams, f"{name}_network")
    if not isinstance(family, CircuitFamily):
        circuits = [key for key in NETWORKS if issubclass(NETWORKS[key], CircuitFamily)]
        raise UserError(
            f"{where}: its {name} is no quantum circuit but {type(family).__name__}; accepted are the networks "
            f"{', '.join(circuits)}"
        )
    return family
