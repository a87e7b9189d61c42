"""A sweep from Python: draw 6 configurations, train them together, look at the results as pandas frames.

Run it: python examples/sweep_from_python.py
"""

import argparse

import hyperlax

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=10_000, help="environment steps of each training")
parser.add_argument("--output-root", default="results/examples", help="where the run directory is made")
arguments = parser.parse_args()

# Network sizes, activations, rollout lengths, numbers of environments, … differ between the samples.
# overrides are not drawn but the same in all of them.
run = hyperlax.sweep(
    "ppo_mlp",
    "gymnax.cartpole",
    num_samples=6,
    overrides={"actor_lr": 1e-3, "critic_lr": 1e-3, "total_num_envs": 8, "num_minibatches": 4},
    run_length=arguments.steps,
    num_seeds=2,
    num_evaluations=4,
    output_root=arguments.output_root,
    progress=False,
)

# One row a sample, best first, with its hyperparameters.
columns = ["sample_id", "final_return", "final_return_std", "status", "rollout_length", "actor_network.layer_sizes"]
print(run.summary[columns].to_string(index=False))

# One row an evaluation; all samples are evaluated at the same numbers of environment steps.
curves = run.evaluations.pivot_table(index="grid_step", columns="sample_id", values="mean_return")
print("\nmean return over seeds, a column a sample")
print(curves.round(1).to_string())

# The best of several looks better than it is: its score is quoted from seeds that did not select it.
winner = run.info["winner"]
print(f"\nsample {winner['sample_id']}: {winner['selected_final_return']:.1f} when it was selected, ", end="")
print(f"{winner['fresh_seeds_final_return']:.1f} on {winner['fresh_seeds']} fresh seeds")

# The same frames, later and elsewhere.
again = hyperlax.load_run(run.path)
print(f"\n{len(again.summary)} samples, {len(again.evaluations)} evaluations in {run.path}")
