// State vectors of many circuits, and the gradients of their expectation values, for vectors of samples.
//
// A tape (hyperlax/quantum/tape.py) is layers of one rotation a qubit, each followed by a signed permutation of the
// basis states. A block simulates one vector of samples at a time: state[k] holds the amplitude of basis state k of
// each of them, so that nothing is ever shuffled inside a vector, whatever the qubit.
//
// The gradient is the adjoint method. Let psi be the state behind a layer and dual = (sum_w weight_w P_w) psi, taken
// back to the same place. A small angle of rotation of qubit q about the axis (x, y, z), behind the layer's own
// rotations, changes the loss by t . (x, y, z), where t = (Im<dual|X psi>, Im<dual|Y psi>, Im<dual|Z psi>). What turns
// earlier in the layer does so about its axis as the later rotations turn it; so t is led back through them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace hyperlax {

#define HYPERLAX_INLINE inline __attribute__((always_inline))

constexpr int kBytes = 64;  // of a vector: one register of AVX-512, two of AVX2, four of SSE or NEON

template <typename T>
struct Types;
template <>
struct Types<float> {
  typedef float Vec __attribute__((vector_size(kBytes), aligned(kBytes)));
  typedef int32_t Int __attribute__((vector_size(kBytes), aligned(kBytes)));
};
template <>
struct Types<double> {
  typedef double Vec __attribute__((vector_size(kBytes), aligned(kBytes)));
  typedef int64_t Int __attribute__((vector_size(kBytes), aligned(kBytes)));
};

// One lane's tape and operands. Arrays have the program's padded sizes; the lane uses its own part of them.
template <typename T>
struct Lane {
  int num_layers, num_qubits, num_observables;             // its own
  int max_qubits, max_rotations, num_states, num_samples;  // sizes of the arrays
  const int32_t* axis;     // (layers, qubits, rotations)
  const int32_t* feature;  // likewise; -1 for none
  const T* offset;         // likewise: angle = offset + scale * input
  const T* scale;
  const int32_t* source;  // (layers, states)
  const T* sign;
  const int32_t* flips;  // (observables)
  const int32_t* masks;
  const int32_t* num_y;
  const T* inputs;   // (features, samples)
  const T* weights;  // (observables, samples): the gradient by the values; backward only

  int rotation(int layer, int qubit) const { return (layer * max_qubits + qubit) * max_rotations; }
};

// Sine and cosine; Cody and Waite's reduction, then the polynomials of Cephes.
HYPERLAX_INLINE void sine_cosine(Types<float>::Vec x, Types<float>::Vec& sine, Types<float>::Vec& cosine) {
  typedef Types<float>::Vec Vec;
  typedef Types<float>::Int Int;
  Vec y = x * 0.63661977236758134f;
  Int j = __builtin_convertvector(y + (y > 0 ? Vec{} + 0.5f : Vec{} - 0.5f), Int);
  Vec n = __builtin_convertvector(j, Vec);
  Vec r = ((x - n * 1.5703125f) - n * 4.837512969970703125e-4f) - n * 7.549789948768648e-8f;
  Vec z = r * r;
  Vec s = r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
  Vec c = 1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
  Int swapped = (j & 1) != 0;
  sine = (swapped ? c : s) * ((j & 2) != 0 ? Vec{} - 1.0f : Vec{} + 1.0f);
  cosine = (swapped ? s : c) * (((j + 1) & 2) != 0 ? Vec{} - 1.0f : Vec{} + 1.0f);
}

HYPERLAX_INLINE void sine_cosine(Types<double>::Vec x, Types<double>::Vec& sine, Types<double>::Vec& cosine) {
  typedef Types<double>::Vec Vec;
  typedef Types<double>::Int Int;
  Vec y = x * 0.63661977236758134308;
  Int j = __builtin_convertvector(y + (y > 0 ? Vec{} + 0.5 : Vec{} - 0.5), Int);
  Vec n = __builtin_convertvector(j, Vec);
  Vec r = ((x - n * 1.57079625129699707031) - n * 7.54978941586159635335e-8) - n * 5.39030252995776476554e-15;
  Vec z = r * r;
  Vec s = -2.50507477628578072866e-8 + z * 1.58962301576546568060e-10;
  s = 8.33333333332211858878e-3 + z * (-1.98412698295895385996e-4 + z * (2.75573136213857245213e-6 + z * s));
  s = r + r * z * (-1.66666666666666307295e-1 + z * s);
  Vec c = 2.08757008419747316778e-9 + z * -1.13585365213876817300e-11;
  c = -1.38888888888730564116e-3 + z * (2.48015872888517045348e-5 + z * (-2.75573141792967388112e-7 + z * c));
  c = 1.0 - 0.5 * z + z * z * (4.16666666666665929218e-2 + z * c);
  Int swapped = (j & 1) != 0;
  sine = (swapped ? c : s) * ((j & 2) != 0 ? Vec{} - 1.0 : Vec{} + 1.0);
  cosine = (swapped ? s : c) * (((j + 1) & 2) != 0 ? Vec{} - 1.0 : Vec{} + 1.0);
}

template <typename T>
class Block {
  typedef typename Types<T>::Vec Vec;

  struct Complex {
    Vec re, im;
  };
  struct Quaternion {  // a - i (x X + y Y + z Z)
    Vec a, x, y, z;
  };
  struct Turn {  // one rotation: cosine and sine of half its angle
    Vec c, s;
  };
  struct Slope {  // of the loss by the angle of one rotation, and that times its input
    Vec offset, scale;
  };

 public:
  static constexpr int kSamples = kBytes / sizeof(T);

  // Prepares what all samples of a lane share: the rotations that no input changes.
  HYPERLAX_INLINE void begin(const Lane<T>& lane) {
    const int n = lane.num_qubits, m = lane.max_rotations;
    turns_.resize(lane.num_layers * n * m);
    slopes_.assign(turns_.size(), Slope{});
    product_.resize(lane.num_layers * n);
    state_.resize(1 << n);
    for (int layer = 0; layer < lane.num_layers; ++layer)
      for (int qubit = 0; qubit < n; ++qubit)
        for (int r = 0; r < m; ++r) {
          const int place = lane.rotation(layer, qubit) + r;
          if (lane.feature[place] < 0) turns_[(layer * n + qubit) * m + r] = turn(Vec{} + lane.offset[place]);
        }
  }

  // Simulates `count` samples from number `first` on, and writes (observables, samples) values.
  HYPERLAX_INLINE void forward(const Lane<T>& lane, int first, int count, T* values) {
    run(lane, first, count);
    for (int w = 0; w < lane.num_observables; ++w) store(values + w * lane.num_samples + first, count, expect(lane, w));
  }

  // Adds to the gradient by inputs, (features, samples), and to the sums that `finish` returns.
  HYPERLAX_INLINE void backward(const Lane<T>& lane, int first, int count, T* by_input) {
    run(lane, first, count);
    const int states = 1 << lane.num_qubits;
    dual_.assign(states, Complex{});
    for (int w = 0; w < lane.num_observables; ++w) {
      Vec weight = load(lane.weights + w * lane.num_samples + first, count);
      for (int k = 0; k < states; ++k) {
        Complex term = word(lane, w, k);
        dual_[k].re += weight * term.re;
        dual_[k].im += weight * term.im;
      }
    }
    for (int layer = lane.num_layers - 1; layer >= 0; --layer) {
      unpermute(lane, layer, state_);
      unpermute(lane, layer, dual_);
      for (int qubit = 0; qubit < lane.num_qubits; ++qubit) {
        Vec t[3] = {};
        untwist(qubit, states, product_[layer * lane.num_qubits + qubit], layer > 0, t);
        lead_back(lane, layer, qubit, first, count, t, by_input);
      }
    }
  }

  // Writes the gradients by offsets and scales since `begin`, (layers, qubits, rotations).
  HYPERLAX_INLINE void finish(const Lane<T>& lane, T* by_offset, T* by_scale) const {
    const int n = lane.num_qubits, m = lane.max_rotations;
    for (int layer = 0; layer < lane.num_layers; ++layer)
      for (int qubit = 0; qubit < n; ++qubit)
        for (int r = 0; r < m; ++r) {
          const Slope& slope = slopes_[(layer * n + qubit) * m + r];
          by_offset[lane.rotation(layer, qubit) + r] = sum(slope.offset);
          by_scale[lane.rotation(layer, qubit) + r] = sum(slope.scale);
        }
  }

 private:
  std::vector<Complex> state_, dual_, spare_;
  std::vector<Quaternion> product_;
  std::vector<Turn> turns_;
  std::vector<Slope> slopes_;

  static HYPERLAX_INLINE Vec load(const T* from, int count) {
    Vec v = {};
    std::memcpy(&v, from, count == kSamples ? kBytes : count * sizeof(T));
    return v;
  }
  static HYPERLAX_INLINE void store(T* to, int count, Vec v) { std::memcpy(to, &v, count * sizeof(T)); }
  static HYPERLAX_INLINE T sum(Vec v) {
    T total = 0;
    for (int i = 0; i < kSamples; ++i) total += v[i];
    return total;
  }

  static HYPERLAX_INLINE Turn turn(Vec angle) {
    Turn t;
    Vec half = angle * T(0.5);
    sine_cosine(half, t.s, t.c);
    const auto far = half * half > T(8192.0 * 8192.0);  // where the reduction loses digits
    int64_t any = 0;
    for (int i = 0; i < 8; ++i) any |= reinterpret_cast<const int64_t*>(&far)[i];
    if (__builtin_expect(any != 0, 0))
      for (int i = 0; i < kSamples; ++i)
        if (far[i]) t.s[i] = std::sin(half[i]), t.c[i] = std::cos(half[i]);
    return t;
  }

  // Returns a rotation about an axis after q.
  static HYPERLAX_INLINE Quaternion after(Turn t, int axis, const Quaternion& q) {
    if (axis == 0) return {t.c * q.a - t.s * q.x, t.c * q.x + t.s * q.a, t.c * q.y - t.s * q.z, t.c * q.z + t.s * q.y};
    if (axis == 1) return {t.c * q.a - t.s * q.y, t.c * q.x + t.s * q.z, t.c * q.y + t.s * q.a, t.c * q.z - t.s * q.x};
    return {t.c * q.a - t.s * q.z, t.c * q.x - t.s * q.y, t.c * q.y + t.s * q.x, t.c * q.z + t.s * q.a};
  }

  // Applies a rotation to the amplitudes of |0> and |1>.
  static HYPERLAX_INLINE void apply(const Quaternion& q, Complex& zero, Complex& one) {
    Complex u = zero, v = one;
    zero.re = q.a * u.re + q.z * u.im - q.y * v.re + q.x * v.im;
    zero.im = q.a * u.im - q.z * u.re - q.y * v.im - q.x * v.re;
    one.re = q.y * u.re + q.x * u.im + q.a * v.re - q.z * v.im;
    one.im = q.y * u.im - q.x * u.re + q.a * v.im + q.z * v.re;
  }

  HYPERLAX_INLINE void run(const Lane<T>& lane, int first, int count) {
    const int n = lane.num_qubits, states = 1 << n;
    for (int layer = 0; layer < lane.num_layers; ++layer)
      for (int qubit = 0; qubit < n; ++qubit) product_[layer * n + qubit] = rotation(lane, layer, qubit, first, count);
    // The first layer makes a product state.
    state_[0] = Complex{Vec{} + T(1), Vec{}};
    for (int qubit = 0; qubit < n; ++qubit)
      for (int k = 0; k < 1 << qubit; ++k) {
        const Quaternion& q = product_[qubit];
        Complex u = state_[k];
        state_[k + (1 << qubit)] = Complex{q.y * u.re + q.x * u.im, q.y * u.im - q.x * u.re};
        state_[k] = Complex{q.a * u.re + q.z * u.im, q.a * u.im - q.z * u.re};
      }
    permute(lane, 0);
    for (int layer = 1; layer < lane.num_layers; ++layer) {
      for (int qubit = 0; qubit < n; ++qubit) twist(qubit, states, product_[layer * n + qubit]);
      permute(lane, layer);
    }
  }

  HYPERLAX_INLINE Quaternion rotation(const Lane<T>& lane, int layer, int qubit, int first, int count) {
    Quaternion q = {Vec{} + T(1), Vec{}, Vec{}, Vec{}};
    int place = lane.rotation(layer, qubit);
    Turn* turns = &turns_[(layer * lane.num_qubits + qubit) * lane.max_rotations];
    for (int r = 0; r < lane.max_rotations; ++r, ++place) {
      const int feature = lane.feature[place];
      if (feature >= 0)
        turns[r] = turn(lane.offset[place] +
                        lane.scale[place] * load(lane.inputs + feature * lane.num_samples + first, count));
      q = after(turns[r], lane.axis[place], q);
    }
    // Rounding leaves the norm, of which it takes away what would add up over a circuit.
    Vec unit = T(1.5) - T(0.5) * (q.a * q.a + q.x * q.x + q.y * q.y + q.z * q.z);
    return {unit * q.a, unit * q.x, unit * q.y, unit * q.z};
  }

  HYPERLAX_INLINE void twist(int qubit, int states, const Quaternion& rotation) {
    const Quaternion q = rotation;
    const int bit = 1 << qubit;
    for (int block = 0; block < states; block += 2 * bit)
      for (int k = block; k < block + bit; ++k) apply(q, state_[k], state_[k + bit]);
  }

  // Sums t for one qubit and, unless it is the first layer, takes the rotation off both states.
  HYPERLAX_INLINE void untwist(int qubit, int states, const Quaternion& rotation, bool undo, Vec* t) {
    const Quaternion q = {rotation.a, -rotation.x, -rotation.y, -rotation.z};
    const int bit = 1 << qubit;
    Vec x = {}, y = {}, z = {};
    for (int block = 0; block < states; block += 2 * bit)
      for (int k = block; k < block + bit; ++k) {
        Complex &s0 = state_[k], &s1 = state_[k + bit], &d0 = dual_[k], &d1 = dual_[k + bit];
        x += d0.re * s1.im - d0.im * s1.re + d1.re * s0.im - d1.im * s0.re;
        y += d1.re * s0.re + d1.im * s0.im - d0.re * s1.re - d0.im * s1.im;
        z += d0.re * s0.im - d0.im * s0.re - d1.re * s1.im + d1.im * s1.re;
        if (undo) {
          apply(q, s0, s1);
          apply(q, d0, d1);
        }
      }
    t[0] = x, t[1] = y, t[2] = z;
  }

  // Gives each rotation of a product its share of the gradient.
  HYPERLAX_INLINE void lead_back(const Lane<T>& lane, int layer, int qubit, int first, int count, Vec* t, T* by_input) {
    const int own = (layer * lane.num_qubits + qubit) * lane.max_rotations;
    const Turn* turns = &turns_[own];
    for (int r = lane.max_rotations - 1; r >= 0; --r) {
      const int place = lane.rotation(layer, qubit) + r, axis = lane.axis[place], feature = lane.feature[place];
      Vec slope = t[axis];
      slopes_[own + r].offset += slope;  // zero for samples that are not there: their weights are
      if (feature >= 0) {
        const int at = feature * lane.num_samples + first;
        slopes_[own + r].scale += slope * load(lane.inputs + at, count);
        store(by_input + at, count, load(by_input + at, count) + lane.scale[place] * slope);
      }
      Vec c = turns[r].c * turns[r].c - turns[r].s * turns[r].s, s = T(2) * turns[r].c * turns[r].s;
      Vec &u = t[(axis + 1) % 3], &v = t[(axis + 2) % 3], before = u;
      u = c * u + s * v;
      v = c * v - s * before;
    }
  }

  HYPERLAX_INLINE void permute(const Lane<T>& lane, int layer) {
    const int states = 1 << lane.num_qubits;
    const int32_t* source = lane.source + layer * lane.num_states;
    const T* sign = lane.sign + layer * lane.num_states;
    if (moves(source, states)) {
      spare_.resize(states);
      for (int k = 0; k < states; ++k) spare_[k] = Complex{sign[k] * state_[source[k]].re, sign[k] * state_[source[k]].im};
      state_.swap(spare_);
    } else {
      flip(sign, states, state_);
    }
  }

  HYPERLAX_INLINE void unpermute(const Lane<T>& lane, int layer, std::vector<Complex>& state) {
    const int states = 1 << lane.num_qubits;
    const int32_t* source = lane.source + layer * lane.num_states;
    const T* sign = lane.sign + layer * lane.num_states;
    if (moves(source, states)) {
      spare_.resize(states);
      for (int k = 0; k < states; ++k) spare_[source[k]] = Complex{sign[k] * state[k].re, sign[k] * state[k].im};
      state.swap(spare_);
    } else {
      flip(sign, states, state);
    }
  }

  static HYPERLAX_INLINE bool moves(const int32_t* source, int states) {
    for (int k = 0; k < states; ++k)
      if (source[k] != k) return true;
    return false;
  }

  static HYPERLAX_INLINE void flip(const T* sign, int states, std::vector<Complex>& state) {
    for (int k = 0; k < states; ++k)
      if (sign[k] < 0) state[k] = Complex{-state[k].re, -state[k].im};
  }

  // Returns (P psi)[k] of a Pauli word.
  HYPERLAX_INLINE Complex word(const Lane<T>& lane, int w, int k) const {
    Complex s = state_[k ^ lane.flips[w]];
    T sign = __builtin_parity(k & lane.masks[w]) ? T(-1) : T(1);
    switch (lane.num_y[w] & 3) {  // times (-i) ** num_y
      case 1: return Complex{sign * s.im, -sign * s.re};
      case 2: return Complex{-sign * s.re, -sign * s.im};
      case 3: return Complex{-sign * s.im, sign * s.re};
      default: return Complex{sign * s.re, sign * s.im};
    }
  }

  HYPERLAX_INLINE Vec expect(const Lane<T>& lane, int w) const {
    Vec total = {};
    for (int k = 0; k < 1 << lane.num_qubits; ++k) {
      Complex p = word(lane, w, k);
      total += state_[k].re * p.re + state_[k].im * p.im;
    }
    return total;
  }
};

}  // namespace hyperlax
