"""A quantum circuit of one's own as a network: declared once, then trained, searched and drawn like the others.

python examples/own_circuit.py
"""

import argparse
from dataclasses import dataclass

import hyperlax
from hyperlax.networks.pqc import CircuitFamily
from hyperlax.quantum.circuit import Builder, words_of
from hyperlax.spaces import Categorical, at_least, hyperparameter


@dataclass(frozen=True)
class Alternating(CircuitFamily):
    """One qubit a feature: RX of the scaled feature, RY and RZ of trainable angles, CNOTs in a ring, and again."""

    n_layers: int = hyperparameter(
        3, Categorical((1, 2, 4)), kind="structural", check=at_least(1), description="how often all this is repeated"
    )

    def circuit(self, num_features):
        """Returns the circuit for so many inputs."""
        circuit = Builder(num_features)
        for _ in range(self.n_layers):
            for qubit in range(num_features):
                circuit.rotate("x", qubit, circuit.encode(feature=qubit, scale=circuit.parameter(1.0)))
                circuit.rotate("y", qubit, circuit.trainable())
                circuit.rotate("z", qubit, circuit.trainable())
            circuit.entangle("cnot", "ring")
        return circuit.build(words_of("zz", num_features))


def main() -> None:
    """Trains the circuit with 1, 2 and 4 layers side by side, as actor and as critic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--output-root", default="results")
    args = parser.parse_args()
    hyperlax.register_network("alternating", Alternating)  # from now on there are ppo_alternating, sac_alternating, …
    samples = [{f"{role}_network.n_layers": n for role in ("actor", "critic")} for n in (1, 2, 4)]
    run = hyperlax.sweep(
        "ppo_alternating", "gymnax.cartpole", samples=samples, run_length=args.steps, num_seeds=2,
        output_root=args.output_root, overrides={"actor_lr": 3e-3, "critic_lr": 1e-2, "normalize_observations": False},
    )  # fmt: skip
    print(run.summary[["actor_network.n_layers", "num_params", "final_return"]].to_string(index=False))


if __name__ == "__main__":
    main()
