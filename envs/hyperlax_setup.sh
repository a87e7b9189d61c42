# Prepares a shell for hyperlax, in bash or zsh and from any directory:
#
#     source envs/hyperlax_setup.sh
#
# Activates the repository's .venv (unless another environment is active), sets JAX and XLA variables
# for the CPU or the GPU found here, and a folder for compiled programs. What is already set is left as
# it is, sourcing twice changes nothing, and nothing is printed. HYPERLAX_DEVICE=cpu|gpu overrides what
# is found. A file envs/local.sh beside this one (module loads of a cluster, say) is sourced first.

if [ -n "${ZSH_VERSION:-}" ]; then
    eval '_hyperlax_envs=${(%):-%x}' # zsh's name of the file being sourced; bash could not even parse it
else
    _hyperlax_envs=${BASH_SOURCE[0]}
fi
_hyperlax_envs=$(CDPATH='' cd -- "$(dirname -- "$_hyperlax_envs")" && pwd)

# Adds one flag to XLA_FLAGS, unless a value for it is there.
_hyperlax_xla_flag() {
    case " ${XLA_FLAGS:-} " in
        *" ${1%%=*}="*) ;;
        *) export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }$1" ;;
    esac
}

if [ -f "$_hyperlax_envs/local.sh" ]; then
    . "$_hyperlax_envs/local.sh"
fi

# An environment the user chose stays; conda's base is not a choice.
if [ -z "${VIRTUAL_ENV:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" = base ] &&
    [ -f "$_hyperlax_envs/../.venv/bin/activate" ]; then
    . "$_hyperlax_envs/../.venv/bin/activate"
fi

# Compiled programs are kept here from one process to the next, the small ones too.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/hyperlax/xla}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0.1}"

_hyperlax_device=${HYPERLAX_DEVICE:-}
if [ -z "$_hyperlax_device" ]; then
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
        _hyperlax_device=gpu
    else
        _hyperlax_device=cpu
    fi
fi
if [ "$_hyperlax_device" = gpu ]; then
    . "$_hyperlax_envs/gpu.sh"
else
    . "$_hyperlax_envs/cpu.sh"
fi

unset _hyperlax_envs _hyperlax_device
unset -f _hyperlax_xla_flag
