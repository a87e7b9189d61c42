"""Which trials are given up before their end.

A decision is a function of what was reported, and of nothing else, so that a search that was killed decides the same
way again. Optuna's own successive halving keeps marks of its own in the study, which a kill may come between; that is
why the two kinds of it are written here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner, WilcoxonPruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

ETA = 3  # the best third goes on


def rungs(grid: Sequence[int]) -> list[int]:
    """Returns the points of the grid at which trials are compared: the budget over 3, 9, 27 …, the smallest first."""
    wanted = [grid[-1] / ETA**k for k in range(1, 1 + int(math.log(len(grid), ETA) + 1e-9))]
    return sorted({next(step for step in grid if step >= budget) for budget in wanted} - {grid[-1]})


class SuccessiveHalving(BasePruner):
    """Asynchronous successive halving (Li et al. 2018): at each rung a trial must be in the best third so far.

    Args:
        rungs: environment steps at which trials are compared.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = rungs

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Returns whether a trial that has just reported is to end."""
        return _loses(study, trial, self.rungs, lambda other: True)


class Hyperband(BasePruner):
    """Hyperband (Li et al. 2017), asynchronous: brackets of successive halving, of which the later spare trials longer.

    A trial's number says its bracket: brackets take turns such that each gets a like share of the steps.

    Args:
        rungs: of the bracket that prunes soonest; each further bracket leaves out one more.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = rungs
        last = len(rungs)
        shares = [math.ceil((last + 1) / (s + 1)) * ETA**s for s in range(last, -1, -1)]
        # As evenly interleaved as can be: bracket by bracket where each stands in the sequence of all.
        places = [((i + 0.5) / share, bracket) for bracket, share in enumerate(shares) for i in range(share)]
        self._order = [bracket for _, bracket in sorted(places)]

    def bracket(self, number: int) -> int:
        """Returns the bracket of a trial."""
        return self._order[number % len(self._order)]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Returns whether a trial that has just reported is to end."""
        bracket = self.bracket(trial.number)
        return _loses(study, trial, self.rungs[bracket:], lambda other: self.bracket(other.number) == bracket)


def _loses(
    study: optuna.Study, trial: FrozenTrial, rungs: Sequence[int], competes: Callable[[FrozenTrial], bool]
) -> bool:
    step = trial.last_step
    if step not in rungs:
        return False
    assert step is not None
    own = trial.intermediate_values[step]
    others = [
        other.intermediate_values[step]
        for other in study.get_trials(deepcopy=False)
        if other.number != trial.number and step in other.intermediate_values and competes(other)
    ]
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
    better = sum(sign * other > sign * own for other in others)
    return better >= max(1, (1 + len(others)) // ETA)


#: By name: what makes a pruner for a grid of evaluations, and one line for the user.
PRUNERS: dict[str, tuple[Callable[[Sequence[int]], BasePruner], str]] = {
    "none": (lambda grid: NopPruner(), "every trial runs to its end"),
    "median": (
        lambda grid: MedianPruner(n_warmup_steps=grid[0] + 1),
        "ends trials whose best so far is below the median of the others there",
    ),
    "percentile": (
        lambda grid: PercentilePruner(25.0, n_warmup_steps=grid[0] + 1),
        "keeps the best quarter",
    ),
    "asha": (
        lambda grid: SuccessiveHalving(rungs(grid)),
        "asynchronous successive halving: at a third, a ninth … of the budget the best third goes on",
    ),
    "hyperband": (
        lambda grid: Hyperband(rungs(grid)),
        "successive halving that begins later in some trials, for those that learn late",
    ),
    "wilcoxon": (
        lambda grid: WilcoxonPruner(p_threshold=0.1),
        "trains the seeds of a trial one by one, until it is significantly worse than the best",
    ),
}
#: Pruners that compare seeds of whole trainings, not points of one.
OVER_SEEDS = ("wilcoxon",)
