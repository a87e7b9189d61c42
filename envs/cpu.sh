# JAX and XLA on the CPU; sourced by hyperlax_setup.sh.
#
# The number of XLA's threads and of CPU devices is left alone: hyperlax makes the cores devices itself
# (--num-devices), and a limit set here would be a second opinion.

# Do not look for accelerators; that costs time and prints warnings where there are none.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
