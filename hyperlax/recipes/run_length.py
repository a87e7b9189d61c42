"""How long a run is and how it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hyperlax.errors import UserError


@dataclass(frozen=True)
class RunLength:
    """Training budget and evaluation of every (sample, seed).

    Attributes:
        total_timesteps: environment steps, over all environments of a lane.
        num_evaluations: points on the common grid of environment steps, the last at the end.
        num_eval_episodes: greedy episodes at each point.
        num_seeds: repetitions of every sample.
    """

    total_timesteps: int
    num_evaluations: int
    num_eval_episodes: int
    num_seeds: int

    def __post_init__(self) -> None:
        for name, most in (
            ("total_timesteps", 2**31 - 2**24),
            ("num_evaluations", 10_000),
            ("num_eval_episodes", 100_000),
            ("num_seeds", 100_000),
        ):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise UserError(f"{name} {value}: accepted is 1 … {most}")
        if self.num_evaluations > self.total_timesteps:
            raise UserError(
                f"num_evaluations {self.num_evaluations}: accepted is at most one for each of the "
                f"{self.total_timesteps} environment steps"
            )

    def grid(self) -> list[int]:
        """Returns the environment steps at which every sample is evaluated."""
        return [-(-k * self.total_timesteps // self.num_evaluations) for k in range(1, self.num_evaluations + 1)]


RUN_LENGTHS = {
    "quick": RunLength(total_timesteps=20_480, num_evaluations=4, num_eval_episodes=8, num_seeds=2),
    "default": RunLength(total_timesteps=100_000, num_evaluations=5, num_eval_episodes=16, num_seeds=8),
    "long": RunLength(total_timesteps=5_000_000, num_evaluations=40, num_eval_episodes=32, num_seeds=4),
}


def run_length(modifier: str | int | RunLength, **changes: int | None) -> RunLength:
    """Returns the run length of a name or a number of steps, with changes.

    Args:
        modifier: ``quick``, ``default``, ``long``, or the number of environment steps.
        **changes: fields of :class:`RunLength` that are not None.

    Raises:
        UserError: neither a name nor a whole number, or out of range.
    """
    if isinstance(modifier, RunLength):
        length = modifier
    elif modifier in RUN_LENGTHS:
        length = RUN_LENGTHS[str(modifier)]
    else:
        try:
            steps = int(str(modifier).replace("_", ""))
        except ValueError:
            names = ", ".join(RUN_LENGTHS)
            raise UserError(f"run length '{modifier}': accepted are {names} or a number of steps") from None
        length = replace(RUN_LENGTHS["default"], total_timesteps=steps)
    return replace(length, **{name: value for name, value in changes.items() if value is not None})
