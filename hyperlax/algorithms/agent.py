"""What all agents have in common once they have learnt: they act greedily, and are saved and restored."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.algorithms import experience
from hyperlax.algorithms.statistics import RunningStatistics
from hyperlax.networks.alternatives import AlternativeNetworks
from hyperlax.networks.padding import flat, nested_dict


class Agent:
    """The base of an algorithm's agent, which adds ``init_params``, ``init`` and ``update``.

    Its state has ``learners`` by role and ``statistics`` of raw observations.

    Attributes:
        ACTING: role of the network that acts.
        meaning: what :meth:`meant` outputs of that network are.
        networks: one a role.
        metric_names: of what :meth:`update` measures.
    """

    ACTING: ClassVar[str]
    meaning: str
    networks: dict[str, AlternativeNetworks]
    metric_names: tuple[str, ...]

    def _greedy(self, outputs: jax.Array, free: jax.Array, lane: Any) -> jax.Array:
        """Returns the actions, as the environment takes them, of the acting network's outputs ``(outputs, batch)``.

        ``free`` are the parameters beside that network.
        """
        raise NotImplementedError

    def meant(self, outputs: jax.Array, lane: Any) -> jax.Array:
        """Returns what the acting network's outputs ``(outputs, batch)`` stand for, a linear function of them."""
        del lane
        return outputs

    @staticmethod
    def _features(statistics: RunningStatistics, lane: Any, observation: jax.Array) -> jax.Array:
        """Returns what networks see of raw observations ``(…, features)``: ``(features, batch)``."""
        return experience.features(statistics, lane.normalize_observations, observation)

    def is_finite(self, state: Any) -> jax.Array:
        """Returns whether all parameters are finite."""
        return jnp.stack([jnp.isfinite(learner.params).all() for learner in state.learners.values()]).all()

    def policy(self, state: Any) -> Any:
        """Returns the part of the state that acting needs."""
        return {self.ACTING: state.learners[self.ACTING].params, "statistics": state.statistics}

    def act(self, policy: Any, lane: Any, observation: jax.Array) -> jax.Array:
        """Returns greedy actions for raw observations ``(batch, features)``, as the environment takes them."""
        free = self.networks[self.ACTING].free(policy[self.ACTING])
        return self._greedy(self.outputs(policy, lane, observation), free, lane)

    def outputs(self, policy: Any, lane: Any, observation: jax.Array) -> jax.Array:
        """Returns the acting network's outputs ``(outputs, batch)`` for raw observations ``(batch, features)``."""
        network = self.networks[self.ACTING]
        features = self._features(policy["statistics"], lane, observation)
        return network(network.unpack(policy[self.ACTING]), features, getattr(lane, self.ACTING))

    def export(self, policy: Any, hyperparams: Any) -> dict[str, np.ndarray]:
        """Returns one lane's policy at its exact size as flat arrays, ``actor/head/bias`` and so on."""
        family = getattr(hyperparams, f"{self.ACTING}_network")
        exact = self.networks[self.ACTING].export(policy[self.ACTING], family)
        tree = {self.ACTING: exact["network"], "statistics": policy["statistics"]._asdict()}
        return flat(tree | ({"log_std": exact["free"]} if exact["free"].size else {}))

    def restore(self, arrays: dict[str, np.ndarray]) -> Any:
        """Returns the policy of exported arrays, for an agent of exactly their shape."""
        tree = nested_dict(arrays)
        params = self.networks[self.ACTING].pack(tree[self.ACTING], tree.get("log_std", ()))
        return {self.ACTING: jnp.asarray(params), "statistics": RunningStatistics.of(tree["statistics"])}
