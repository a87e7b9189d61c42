# JAX and XLA on NVIDIA GPUs; sourced by hyperlax_setup.sh.

# hyperlax plans its memory, so JAX may have nearly all of the GPU, and in one piece (no fragmentation).
# On a GPU that is shared, set XLA_PYTHON_CLIENT_PREALLOCATE=false before sourcing.
export XLA_PYTHON_CLIENT_PREALLOCATE="${XLA_PYTHON_CLIENT_PREALLOCATE:-true}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"

# float32 matrix products in float32: the default rounds their inputs to TF32, three decimal digits.
export JAX_DEFAULT_MATMUL_PRECISION="${JAX_DEFAULT_MATMUL_PRECISION:-float32}"

# The same seed gives the same bits: no atomics whose order varies.
_hyperlax_xla_flag --xla_gpu_deterministic_ops=true
