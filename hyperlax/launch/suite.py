"""What a benchmark consists of: recipes × environments × modes, from a file that a user edits or from options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import hyperlax
from hyperlax import runs
from hyperlax.engine import devices
from hyperlax.environments import make
from hyperlax.errors import UserError, unknown
from hyperlax.recipes import get_recipe, run_length
from hyperlax.results.directory import folder_name
from hyperlax.spaces.hyperparameters import declarations
from hyperlax.spaces.samplers import SAMPLERS

MODES = ("batched", "sequential")
#: Where suites are looked for by name.
PACKAGE = Path(hyperlax.__file__).parent
FOLDERS = (Path("configs"), PACKAGE.parent / "configs", PACKAGE / "configs")


@dataclass(frozen=True)
class Cell:
    """One sweep of a benchmark.

    Attributes:
        recipe: its name.
        env: name of the environment.
        mode: ``batched`` or ``sequential``.
    """

    recipe: str
    env: str
    mode: str

    def __str__(self) -> str:
        return f"{self.recipe} on {self.env}, {self.mode}"

    @property
    def folder(self) -> Path:
        """Where it lies below the benchmark's directory."""
        return Path(folder_name(self.recipe), folder_name(self.env), self.mode)


@dataclass(frozen=True)
class Suite:
    """A grid of sweeps that have all else in common.

    Attributes:
        algos: names of recipes.
        envs: names of environments.
        sweep_modes: of :data:`MODES`.
        num_samples_per_run: configurations of every sweep.
        sampling_method: how they are drawn.
        run_length_modifier: ``quick``, ``default``, ``long`` or environment steps.
        num_seeds: of each; None for those of the run length, as with the next two.
        num_evaluations: over the budget.
        num_eval_episodes: of each evaluation.
        seed: of all randomness.
        set: hyperparameters that are fixed, where a recipe has them.
    """

    algos: tuple[str, ...]
    envs: tuple[str, ...]
    sweep_modes: tuple[str, ...] = ("batched",)
    num_samples_per_run: int = 16
    sampling_method: str = "qmc_sobol"
    run_length_modifier: str | int = "default"
    num_seeds: int | None = None
    num_evaluations: int | None = None
    num_eval_episodes: int | None = None
    seed: int = 42
    set: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("algos", "envs", "sweep_modes"):
            given = getattr(self, name)
            is_list = isinstance(given, Sequence) and not isinstance(given, str)
            if not is_list or not given or not all(isinstance(entry, str) for entry in given):
                raise UserError(f"{name} {given!r}: accepted is a list of names, one or more")
            object.__setattr__(self, name, tuple(dict.fromkeys(given)))
        for mode in self.sweep_modes:
            if mode not in MODES:
                raise unknown("sweep mode", mode, MODES)
        if str(self.sampling_method) not in SAMPLERS:
            raise unknown("sampling method", str(self.sampling_method), SAMPLERS)
        for name in ("num_samples_per_run", "num_seeds", "num_evaluations", "num_eval_episodes", "seed"):
            value, least = getattr(self, name), int(name != "seed")
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < (name != "seed")
            ):
                raise UserError(f"{name} {value!r}: accepted is a whole number, {least} or more")
        if not isinstance(self.set, Mapping):
            raise UserError(f"set {self.set!r}: accepted is a table of hyperparameters")
        run_length(self.run_length_modifier, **self.evaluation())

    def evaluation(self) -> dict[str, int | None]:
        """Returns what changes the run length."""
        return {name: getattr(self, name) for name in ("num_seeds", "num_evaluations", "num_eval_episodes")}

    def cells(self) -> tuple[list[Cell], dict[Cell, str]]:
        """Returns the sweeps that can be, and of those that cannot why.

        Raises:
            UserError: a name is not known, or a hyperparameter that is fixed belongs to none of the recipes.
        """
        devices.configure()  # some suites of environments start JAX when they are imported
        recipes = [get_recipe(name) for name in self.algos]
        for name in self.set:
            known = {key: None for recipe in recipes for key in declarations(recipe.defaults)}
            if name not in known:
                raise unknown("hyperparameter", name, known)
        environments = {name: make(name) for name in self.envs}
        possible, skipped = [], {}
        for mode in self.sweep_modes:
            for recipe in recipes:
                for name, env in environments.items():
                    cell = Cell(recipe.name, name, mode)
                    try:
                        runs.check_actions(recipe, env)
                    except UserError as error:
                        skipped[cell] = str(error)
                    else:
                        possible.append(cell)
        return possible, skipped

    def overrides(self, recipe: str) -> dict[str, Any]:
        """Returns what is fixed of a recipe."""
        known = declarations(get_recipe(recipe).defaults)
        return {name: value for name, value in self.set.items() if name in known}


def load_suite(name: str) -> dict[str, Any]:
    """Returns the entries of a suite's file.

    Args:
        name: of a file in ``configs/``, with or without ``.toml``, or a path.

    Raises:
        UserError: there is none, or it has an entry that is not known.
    """
    path = _find(name)
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--base-config {path}: {' '.join(str(error).split())}") from None
    known = {f.name for f in fields(Suite)}
    for key in entries:
        if key not in known:
            raise unknown(f"entry of {path}", key, known)
    return entries


def make_suite(base: str | None, **options: Any) -> Suite:
    """Returns a suite: the entries of a file, if one is named, and options that are not None instead of them."""
    entries = {} if base is None else load_suite(base)
    entries |= {name: value for name, value in options.items() if value is not None and value != {}}
    for name, option in (("algos", "--algos"), ("envs", "--envs")):
        if name not in entries:
            raise UserError(f"nothing to run: give {option}, or a suite with --base-config")
    return Suite(**entries)


def _find(name: str) -> Path:
    given = Path(name)
    if given.suffix == ".toml" and given.is_file():
        return given
    for folder in FOLDERS:
        path = folder / f"{name.removesuffix('.toml')}.toml"
        if path.is_file():
            return path
    names = {path.stem for folder in FOLDERS if folder.is_dir() for path in folder.glob("*.toml")}
    raise unknown("suite", name, names, hint="(or the path of a TOML file)")
