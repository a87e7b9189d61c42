"""Executors against PennyLane's default.qubit: values, gradients by parameters and by inputs, of random circuits."""

from __future__ import annotations

from functools import cache, reduce

import jax
import numpy as np
import pytest

from hyperlax.engine import devices
from hyperlax.errors import UserError
from hyperlax.quantum import executor, fused_cpu
from hyperlax.quantum.circuit import (
    ENTANGLERS,
    ROTATIONS,
    Angle,
    Builder,
    data_reuploading,
    hardware_efficient,
)
from hyperlax.quantum.tape import TapeShape, lower, pad, shape_of

BATCH, KERNELS = 3, ("jax", "cpu")


def random_circuit(num_qubits, seed, num_gates=40):
    """Every kind of gate, angle and Pauli word in any order."""
    rng = np.random.default_rng(seed)
    circuit = Builder(num_qubits)
    for _ in range(num_gates):
        if num_qubits > 1 and rng.random() < 0.35:
            circuit.couple(str(rng.choice(ENTANGLERS)), *map(int, rng.choice(num_qubits, 2, replace=False)))
            continue
        scale = circuit.parameter(-2, 2) if rng.random() < 0.5 else None
        bias = circuit.parameter(-3, 3) if rng.random() < 0.5 else None
        feature = int(rng.integers(4)) if scale is not None or rng.random() < 0.5 else None
        angle = Angle(float(np.float32(rng.normal())), bias, scale, feature)
        circuit.rotate(str(rng.choice(ROTATIONS)), int(rng.integers(num_qubits)), angle)
    circuit.rotate("x", 0, circuit.encode(3))
    return circuit.build("".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(3))


CIRCUITS = {
    **{f"random {n}": random_circuit(n, n) for n in range(1, 11)},
    "re-uploading": data_reuploading(5, 3, 2),
    "re-uploading, one qubit": data_reuploading(2, 4, 1, "single"),
    "hardware-efficient": hardware_efficient(4, 2, 3, ("x", "y"), "cz", "all", "zz"),
}


def inputs_of(circuit, batch=BATCH):
    """Parameters, inputs and the weights of the outputs in a loss: numbers that float32 has."""
    rng = np.random.default_rng(5)
    params = np.array([rng.uniform(low, high) for low, high in circuit.initial])
    drawn = params, rng.normal(size=(circuit.num_inputs, batch)), rng.normal(size=(len(circuit.observables), batch))
    return [array.astype(np.float32).astype(float) for array in drawn]


def pennylane(circuit, params, inputs, weights):
    """Values, and the gradients of their weighted sum, as PennyLane has them; gate by gate, one input at a time."""
    qml = pytest.importorskip("pennylane")
    from pennylane import numpy as pnp

    gates = {"x": qml.RX, "y": qml.RY, "z": qml.RZ, "cnot": qml.CNOT, "cz": qml.CZ}
    letters = {"I": qml.Identity, "X": qml.X, "Y": qml.Y, "Z": qml.Z}

    @qml.qnode(qml.device("default.qubit", wires=circuit.num_qubits), interface="autograd", diff_method="adjoint")
    def node(params, x):
        for gate in circuit.gates:
            if gate.angle is None:
                gates[gate.name](wires=gate.qubits)
                continue
            a = gate.angle
            angle = a.constant + (0.0 if a.bias is None else params[a.bias])
            if a.feature is not None:
                angle = angle + x[a.feature] * (1.0 if a.scale is None else params[a.scale])
            gates[gate.name](angle, wires=gate.qubits[0])
        words = [qml.prod(*(letters[c](q) for q, c in enumerate(word))) for word in circuit.observables]
        return [qml.expval(word) for word in words]

    params = pnp.array(params, requires_grad=True)
    columns = [pnp.array(x, requires_grad=True) for x in inputs.T]
    slopes = [
        qml.grad(lambda p, x, w=w: pnp.dot(pnp.stack(node(p, x)), w), argnums=(0, 1))(params, x)
        for x, w in zip(columns, weights.T, strict=True)
    ]
    values = np.stack([np.array(node(params, x)) for x in columns], axis=1)
    by_params, by_inputs = zip(*slopes, strict=True)
    return (np.sum(by_params, axis=0), np.stack(by_inputs, axis=1)), values


def differentiated(function, weight):
    """Values, and the gradients of their weighted sum by parameters and inputs."""

    def loss(params, x):
        values = function(params, x)
        return (values * weight).sum(), values

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request):
    """Each executor in turn."""
    if request.param == "cpu" and fused_cpu.library() is None:
        pytest.skip("no kernel was built")
    executor.choose(request.param)
    yield request.param
    executor.choose("auto")


def run(circuit, shape=None):
    """The circuit as a function of its parameters and inputs."""
    tape = lower(circuit)
    shape = shape or shape_of(circuit)
    padded = pad(tape, shape)
    return lambda params, x: executor.expectations(padded, params, x, shape)


@cache
def reference(name):
    """What PennyLane has for a circuit."""
    circuit = CIRCUITS[name]
    return pennylane(circuit, *inputs_of(circuit))


@pytest.mark.parametrize("name", CIRCUITS)
def test_values_and_gradients_are_those_of_pennylane(kernel, name):
    circuit = CIRCUITS[name]
    params, x, weight = inputs_of(circuit)
    with jax.enable_x64(True):
        exact = jax.device_get(differentiated(run(circuit), weight)(params, x))
    assert_close(exact, reference(name), 1e-12)
    params, x, weight = (np.float32(array) for array in (params, x, weight))
    slopes, values = jax.device_get(differentiated(run(circuit), weight)(params, x))
    assert_close(values, reference(name)[1], 1e-6)
    assert_close(slopes, reference(name)[0], 2e-6)  # of the largest; PennyLane's own in float32 are up to 0.9e-6 off


def assert_close(actual, expected, tolerance):
    """Compares to ``tolerance`` of the largest entry of each array, at least of 1."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))


def test_the_kernel_gives_the_same_bits_alone_and_in_a_batch(kernel):
    """Circuits of different depth and width as lanes of one call, padded, with other numbers of samples to each."""
    names = ["random 2", "random 5", "re-uploading"]
    circuits = [CIRCUITS[name] for name in names]
    tapes = [lower(circuit) for circuit in circuits]
    shape = reduce(TapeShape.merge, map(shape_of, circuits))
    batch, features = 150, max(circuit.num_inputs for circuit in circuits)
    count = max(circuit.num_params for circuit in circuits)
    drawn = [inputs_of(circuit, batch) for circuit in circuits]
    params = np.stack([np.pad(p, (0, count - len(p))) for p, _, _ in drawn]).astype(np.float32)
    x = np.stack([np.pad(x, ((0, features - len(x)), (0, 0))) for _, x, _ in drawn]).astype(np.float32)
    weight = np.stack([np.pad(w, ((0, shape.num_observables - len(w)), (0, 0))) for _, _, w in drawn])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(pad(tape, shape) for tape in tapes))

    def loss(params, x, tape, weight):
        values = executor.expectations(tape, params, x, shape)
        return (values * weight).sum(), values

    batched = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1), has_aux=True)))(params, x, stacked, np.float32(weight))
    for lane, circuit in enumerate(circuits):
        own_params, own_x, own_weight = (np.float32(array) for array in drawn[lane])
        (by_params, by_x), values = differentiated(run(circuit), own_weight)(own_params, own_x)
        (got_params, got_x), got = jax.tree.map(lambda leaf, lane=lane: leaf[lane], batched)
        pairs = [(got[: len(values)], values), (got_params[: len(by_params)], by_params), (got_x[: len(by_x)], by_x)]
        for a, b in pairs:
            if kernel == "jax":
                np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(1, np.abs(b).max()))
            else:
                np.testing.assert_array_equal(a, b)
        assert not np.any(got[len(values) :]) and not np.any(got_params[len(by_params) :])


def test_a_kernel_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(fused_cpu, "library", lambda: None)
    monkeypatch.setattr(executor, "_chosen", "auto")
    with pytest.raises(UserError, match="kernel cpu: it was "):
        executor.choose("cpu")
    with pytest.raises(UserError, match="unknown kernel 'quick': accepted: auto, cpu, jax"):
        executor.choose("quick")
    assert executor.current() == "jax"


def test_double_precision_without_x64_is_refused():
    """JAX would round silently."""
    circuit = CIRCUITS["re-uploading"]
    params, x, _ = inputs_of(circuit)
    with pytest.raises(UserError, match=r"params in double precision: accepted only with .*jax_enable_x64"):
        run(circuit)(params, x)
    with pytest.raises(UserError, match="inputs in double precision"):
        run(circuit)(np.float32(params), x)


def test_lanes_spread_over_devices_give_the_same_bits(kernel):
    """shard_map over CPU devices: each calls the executor for its own lanes, at the same time."""
    circuit = CIRCUITS["random 5"]
    params, x, weight = (np.float32(array) for array in inputs_of(circuit, 40))
    lanes = np.stack([params + 0.1 * i for i in range(4)])
    function = jax.vmap(differentiated(run(circuit), weight), in_axes=(0, None))
    lane = jax.sharding.PartitionSpec(devices.AXIS)
    specs = {"in_specs": (lane, jax.sharding.PartitionSpec()), "out_specs": lane}
    spread = jax.jit(jax.shard_map(function, mesh=devices.local_mesh(2), check_vma=False, **specs))
    pairs = zip(jax.tree.leaves(spread(lanes, x)), jax.tree.leaves(jax.jit(function)(lanes, x)), strict=True)
    for a, b in pairs:
        if kernel == "cpu":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(1, np.abs(b).max()))


def test_operands_that_do_not_fit_are_refused():
    """The kernel would read what is behind them."""
    circuit = CIRCUITS["re-uploading"]
    params, x, _ = (np.float32(array) for array in inputs_of(circuit))
    with pytest.raises(UserError, match=r"params of shape \(95,\): accepted is \(96 or more\)"):
        run(circuit)(params[1:], x)
    with pytest.raises(UserError, match=r"inputs of shape \(4, 3\): accepted is \(5 or more, batch\)"):
        run(circuit)(params, x[1:])
    with pytest.raises(UserError, match=r"inputs of shape \(5,\): accepted is \(5 or more, batch\)"):
        run(circuit)(params, x[:, 0])


def test_a_circuit_without_parameters_or_gates(kernel):
    """|0> turned by pi about X is |1>, in Z's eyes -1; a circuit that does nothing leaves |0>."""
    circuit = Builder(2)
    circuit.rotate("x", 1, np.pi)
    values = run(circuit.build(["ZI", "IZ", "ZZ"]))(np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    np.testing.assert_allclose(values, [[1, 1], [-1, -1], [-1, -1]], atol=1e-6)
    idle = run(Builder(1).build(["Z", "X", "I"]))(np.zeros(0, np.float32), np.zeros((0, 2), np.float32))
    np.testing.assert_allclose(idle, [[1, 1], [0, 0], [1, 1]], atol=1e-6)


def test_parameters_of_a_wrong_type_are_refused(kernel):
    circuit = CIRCUITS["re-uploading"]
    params, x, _ = inputs_of(circuit)
    with pytest.raises(UserError, match="params of float16: accepted are float32 and float64"):
        run(circuit)(params.astype(np.float16), np.float32(x))
    with pytest.raises(UserError, match="inputs of int32: accepted are float32 and float64"):
        run(circuit)(np.float32(params), x.astype(np.int32))


def test_a_sample_with_huge_or_no_numbers_is_alone_with_them(kernel):
    """Angles beyond what fast sines reduce are computed another way; NaN stays with the sample that has it."""
    circuit = CIRCUITS["re-uploading"]
    params, x, weight = (np.float32(array) for array in inputs_of(circuit, 20))
    plain = differentiated(run(circuit), weight)(params, x)
    x[0, 3], x[1, 7] = 1e6, np.nan
    (_, by_x), values = differentiated(run(circuit), weight)(params, x)
    others = [i for i in range(20) if i not in (3, 7)]
    np.testing.assert_array_equal(values[:, others], plain[1][:, others])
    np.testing.assert_array_equal(by_x[:, others], plain[0][1][:, others])
    assert np.isnan(values[:, 7]).any() and np.isfinite(values[:, 3]).all()
    with jax.enable_x64(True):
        exact = run(circuit)(params.astype(float), x.astype(float))
    np.testing.assert_allclose(values[:, 3], exact[:, 3], atol=0.05)  # an angle of 1e6 has an ulp of 0.06 in float32


def test_a_lane_without_a_circuit_gives_zeros():
    """What a branch that is not taken is given: the kernel must not look for layers there."""
    if fused_cpu.library() is None:
        pytest.skip("no kernel was built")
    circuit = CIRCUITS["random 2"]
    params, x, _ = (np.float32(array) for array in inputs_of(circuit))
    tape = lower(circuit)
    nothing = tape._replace(sizes=np.zeros(3, np.int32))

    def loss(params, x):
        return fused_cpu.expectations(nothing, params, x).sum()

    value, slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x)
    assert not any(np.any(leaf) for leaf in (value, *slopes))


def test_a_deep_and_wide_circuit_is_run_back_instead_of_kept(kernel):
    """More than 16 MiB of states: the way back undoes the rotations. 13 qubits, 20 layers, in double precision."""
    circuit = data_reuploading(39, 20, 1)
    params, x, weight = inputs_of(circuit, 2)
    step = np.random.default_rng(0).normal(size=len(params))
    with jax.enable_x64(True):
        function = run(circuit)
        slopes, _ = jax.device_get(differentiated(function, weight)(params, x))
        along = [(np.asarray(function(params + h * step, x)) * weight).sum() for h in (-1e-5, 1e-5)]
    np.testing.assert_allclose(slopes[0] @ step, (along[1] - along[0]) / 2e-5, rtol=1e-6)


def test_a_kernel_that_does_not_load_is_none(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "_kernel.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(fused_cpu, "KERNEL", broken)
    fused_cpu.problem.cache_clear()
    try:
        assert fused_cpu.library() is None and "cannot be used" in fused_cpu.problem()
        assert "run in pure JAX" in caplog.text
        with pytest.raises(UserError, match="kernel cpu: it was built, but cannot be used"):
            executor.choose("cpu")
    finally:
        monkeypatch.undo()
        fused_cpu.problem.cache_clear()


def test_one_circuit_is_evaluated_by_itself(kernel):
    circuit = CIRCUITS["hardware-efficient"]
    params, x, _ = (np.float32(array) for array in inputs_of(circuit))
    np.testing.assert_array_equal(executor.evaluate(circuit, params, x), run(circuit)(params, x))
    with pytest.raises(UserError, match=r"inputs of shape \(3, 4\): the circuit has 4, which come first"):
        executor.evaluate(circuit, params, x.T)
    with pytest.raises(UserError, match="params of shape"):
        executor.evaluate(circuit, np.append(params, 0), x)
