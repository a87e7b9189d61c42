"""The commands that tell what there is: recipes, environments, samplers, hyperparameters."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from hyperlax.errors import unknown


def list_names(
    what: Annotated[
        str | None, typer.Argument(metavar="[recipes|environments|samplers]", help="All three if left out.")
    ] = None,
) -> None:
    """List recipes, environments and samplers.

    \b
    Example:
      hyperlax list recipes
    """
    sections = {"recipes": _recipes, "environments": _environments, "samplers": _samplers}
    if what is not None and what not in sections:
        raise unknown("list", what, sections)
    for name in sections if what is None else [what]:
        sections[name]()


def _recipes() -> None:
    from hyperlax.recipes import get_recipe, recipe_names

    recipes = [get_recipe(name) for name in recipe_names()]
    rows = [(r.name, r.algorithm, r.network, r.description) for r in recipes]
    print_table(("recipe", "algorithm", "network", "description"), rows)


def _environments() -> None:
    from hyperlax import environments

    print_table(("environment",), [(name,) for name in environments.names()])


def _samplers() -> None:
    from hyperlax.spaces import SAMPLERS

    print_table(("sampler", "description"), [(name, sampler.description) for name, sampler in SAMPLERS.items()])


def show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="`hyperlax list recipes` names all.")],
    env: Annotated[
        str | None,
        typer.Option("--env-config", metavar="ENV", help="Show the defaults tuned for this environment."),
    ] = None,
) -> None:
    """Show the hyperparameters of a recipe.

    Each with its default, distribution, kind and description. A scalar hyperparameter is only a number
    in the program; a structural one bounds a loop or an array. The distribution is what a sweep draws
    from; what is fixed keeps its default.

    \b
    Example:
      hyperlax show ppo_mlp --env-config gymnax.pendulum
    """
    from hyperlax import environments
    from hyperlax.recipes import get_recipe
    from hyperlax.spaces import declarations
    from hyperlax.spaces.distributions import show as show_value

    found: Any = get_recipe(recipe)
    if env is not None and env.partition("@")[0] not in environments.names():
        raise unknown("environment", env, environments.names(), hint="(hyperlax list environments)")
    rows = []
    for name, declared in declarations(found.defaults if env is None else found.defaults_for(env)).items():
        drawn = found.space[name].describe() if name in found.space else "fixed"
        rows.append((name, show_value(declared.default), drawn, declared.kind, declared.description))
    typer.echo(f"{found.name}: {found.description}")
    print_table(("hyperparameter", "default", "distribution", "kind", "description"), rows)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table, wrapped to a terminal's width; a pipe or a file gets one line a row, however long."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        for row in [header, *cells]:
            typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*header, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for row in cells:
            table.add_row(*map(Text, row))  # as Text, so that a list such as [64, 64] is no markup
        Console(highlight=False).print(table)
    typer.echo()
