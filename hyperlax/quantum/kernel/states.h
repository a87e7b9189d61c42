// State vectors of many circuits, and the gradients of their expectation values, for vectors of samples.
//
// A tape (hyperlax/quantum/tape.py) is layers of one rotation a qubit, each followed by a signed permutation of the
// basis states. A block simulates one vector of samples at a time: state[k] holds the amplitude of basis state k of
// each of them, so that nothing is ever shuffled inside a vector, whatever the qubit.
//
// The gradient is the adjoint method, with the states behind all layers kept for a vector of samples as long as that
// takes little memory; a wide and deep circuit is run back instead. Let psi be the state behind a layer and dual =
// (sum_w weight_w P_w) psi, taken back to the same place. A small angle of rotation of qubit q about the axis (x, y,
// z), behind the layer's own rotations, changes the loss by t . (x, y, z), where t = (Im<dual|X psi>, Im<dual|Y psi>,
// Im<dual|Z psi>). What turns earlier in the layer does so about its axis as the later rotations turn it; so t is led
// back through them.

#pragma once

#include <type_traits>

#include "rotations.h"

namespace hyperlax {

#define HYPERLAX_LAMBDA __attribute__((always_inline))

template <typename T>
class Block {
  typedef typename Types<T>::Vec Vec;
  typedef typename Rotations<T>::Quaternion Quaternion;
  typedef typename Rotations<T>::Slopes Slopes;

  static constexpr int kNear = 6;            // qubits whose rotations are done on one piece of the state after another
  static constexpr int64_t kKept = 1 << 24;  // bytes of states that are kept for the way back

 public:
  static constexpr int kSamples = samples_of<T>();

  // Prepares what all samples of a lane share, unless the last call was for the same lane of the same call of XLA's.
  //
  // `gradient`: whether `backward` follows, which keeps the states behind all layers if they are not too large.
  HYPERLAX_INLINE void begin(const Lane<T>& lane, int64_t call, int64_t number, bool gradient) {
    if (call == call_ && number == number_) return;
    call_ = -1;  // until all is done
    const int states = 1 << lane.num_qubits;
    rotations_.begin(lane);
    flipped_.clear();
    flips_.assign(1, 0);
    moves_.assign(lane.num_layers, 0);
    for (int layer = 0; layer < lane.num_layers; ++layer) {
      for (int k = 0; k < states; ++k) {
        const int64_t at = layer * lane.num_states + k;
        moves_[layer] |= lane.source[at] != k;
        if (lane.sign[at] < 0) flipped_.push_back(k);
      }
      flips_.push_back(flipped_.size());
    }
    const bool keep = gradient && lane.num_layers * int64_t(states) * sizeof(Complex) <= kKept;
    states_.resize(keep ? (lane.num_layers + 1) * states : states);
    num_states_ = states;
    spare_.resize(states);
    dual_.resize(gradient ? states : 0);
    words_.resize(states);
    call_ = call, number_ = number;
  }

  // Simulates `count` samples from number `first` on, and writes (observables, samples) values.
  HYPERLAX_INLINE void forward(const Lane<T>& lane, int first, int count, T* values) {
    const Complex* state = run(lane, first, count, false);
    for (size_t k = 0; k < words_.size(); ++k) words_[k].v = state[k].re * state[k].re + state[k].im * state[k].im;
    walsh_hadamard();
    for (int w = 0; w < lane.num_observables; ++w) {
      const Vec value = lane.flips[w] == 0 ? words_[lane.masks[w]].v : expect(lane, state, w);
      store<T>(values + w * lane.num_samples + first, count, value);
    }
  }

  // Prepares the sums of the gradient.
  HYPERLAX_INLINE void begin_sums() { rotations_.begin_sums(); }

  // Writes the gradient by inputs, (features, samples), and adds to the sums that `finish` returns.
  HYPERLAX_INLINE void backward(const Lane<T>& lane, int first, int count, T* by_input) {
    const int n = lane.num_qubits;
    const bool kept = int64_t(states_.size()) > num_states_;
    Complex* state = run(lane, first, count, kept);
    measure_back(lane, state, first, count);
    for (int layer = lane.num_layers - 1; layer >= 0; --layer) {
      const Quaternion* rotations = rotations_.products(lane, layer);
      if (kept)
        state -= num_states_;
      else
        unpermute(lane, layer, states_), state = states_.data();
      unpermute(lane, layer, dual_);
      for (int qubit = 0; qubit < n; ++qubit) slopes_[qubit] = Slopes{};
      in_pieces(n, [&](auto qubits, const Piece& piece) HYPERLAX_LAMBDA { sum_slopes<qubits()>(piece, state); });
      for (int qubit = n - 1; qubit >= 0; --qubit) rotations_.lead_back(lane, layer, qubit, slopes_[qubit]);
      if (layer == 0) break;
      twist(n, rotations, true, dual_.data());
      if (!kept) twist(n, rotations, true, state);
    }
    rotations_.store_slopes(lane, first, count, by_input);
  }

  // Writes the gradient by parameters since `begin_sums`.
  HYPERLAX_INLINE void finish(const Lane<T>& lane, T* by_params) const { rotations_.finish(lane, by_params); }

 private:
  struct Complex {
    Vec re, im;
  };
  struct Number {
    Vec v;
  };
  struct Piece {  // the first of one or two qubits, and basis states
    int qubit, begin, end;
  };

  int64_t call_ = -1, number_ = -1, num_states_ = 0;
  Rotations<T> rotations_;
  std::vector<Complex> states_;  // behind the rotations of every layer, and the final one; or only one
  std::vector<Complex> dual_, spare_;
  std::vector<Number> words_;  // by basis state, or by the mask of a word of I and Z
  Slopes slopes_[32];          // by qubit
  std::vector<int> flipped_;
  std::vector<int64_t> flips_;  // basis states whose sign changes, of all layers; where each layer's begin
  std::vector<char> moves_;     // by layer: whether it does more than change signs

  // Applies a rotation to the amplitudes of |0> and |1>.
  static HYPERLAX_INLINE void apply(const Quaternion& q, Complex& zero, Complex& one) {
    Complex u = zero, v = one;
    zero.re = q.a * u.re + q.z * u.im - q.y * v.re + q.x * v.im;
    zero.im = q.a * u.im - q.z * u.re - q.y * v.im - q.x * v.re;
    one.re = q.y * u.re + q.x * u.im + q.a * v.re - q.z * v.im;
    one.im = q.y * u.im - q.x * u.re + q.a * v.im + q.z * v.re;
  }

  // Runs the circuit and returns the final state; with `keep`, what is before it in memory are those of all layers,
  // before their permutations.
  HYPERLAX_INLINE Complex* run(const Lane<T>& lane, int first, int count, bool keep) {
    rotations_.run(lane, first, count);
    Complex* state = states_.data();
    // The first layer makes a product state.
    state[0] = Complex{Vec{} + T(1), Vec{}};
    for (int qubit = 0; qubit < lane.num_qubits; ++qubit) {
      const Quaternion q = rotations_.products(lane, 0)[qubit];
      for (int k = 0; k < 1 << qubit; ++k) {
        Complex u = state[k];
        state[k + (1 << qubit)] = Complex{q.y * u.re + q.x * u.im, q.y * u.im - q.x * u.re};
        state[k] = Complex{q.a * u.re + q.z * u.im, q.a * u.im - q.z * u.re};
      }
    }
    for (int layer = 0;; ++layer) {
      state = permute(lane, layer, state, keep);
      if (layer + 1 == lane.num_layers) return state;
      twist(lane.num_qubits, rotations_.products(lane, layer + 1), false, state);
    }
  }

  // Rotates all qubits, or back.
  HYPERLAX_INLINE void twist(int n, const Quaternion* rotations, bool back, Complex* state) {
    const T sign = back ? T(-1) : T(1);
    in_pieces(n, [&](auto qubits, const Piece& piece)
                     HYPERLAX_LAMBDA { twist_piece<qubits()>(piece, rotations + piece.qubit, sign, state); });
  }

  template <int qubits>
  static HYPERLAX_INLINE void twist_piece(const Piece& piece, const Quaternion* rotations, T sign, Complex* state) {
    const int bit = 1 << piece.qubit, states = 1 << qubits;
    Quaternion turn[qubits];
#pragma GCC unroll 4
    for (int q = 0; q < qubits; ++q)
      turn[q] = {rotations[q].a, sign * rotations[q].x, sign * rotations[q].y, sign * rotations[q].z};
    for (int i = piece.begin >> qubits; i < piece.end >> qubits; ++i) {
      const int first = i + (states - 1) * (i & -bit);
      Complex s[states];
#pragma GCC unroll 4
      for (int j = 0; j < states; ++j) s[j] = state[first + j * bit];
#pragma GCC unroll 4
      for (int q = 0; q < qubits; ++q)
#pragma GCC unroll 4
        for (int j = 0; j < states; ++j)
          if (!(j >> q & 1)) apply(turn[q], s[j], s[j + (1 << q)]);
#pragma GCC unroll 4
      for (int j = 0; j < states; ++j) state[first + j * bit] = s[j];
    }
  }

  // Adds to the slopes of some qubits, of which the rotations of others are nothing to them.
  template <int qubits>
  HYPERLAX_INLINE void sum_slopes(const Piece& piece, const Complex* state) {
    const int bit = 1 << piece.qubit, states = 1 << qubits;
    const Complex* dual = dual_.data();
    Slopes t[qubits];
#pragma GCC unroll 4
    for (int q = 0; q < qubits; ++q) t[q] = slopes_[piece.qubit + q];
    for (int i = piece.begin >> qubits; i < piece.end >> qubits; ++i) {
      const int first = i + (states - 1) * (i & -bit);
      Complex s[states], d[states];
#pragma GCC unroll 4
      for (int j = 0; j < states; ++j) s[j] = state[first + j * bit], d[j] = dual[first + j * bit];
#pragma GCC unroll 4
      for (int q = 0; q < qubits; ++q)
#pragma GCC unroll 4
        for (int j = 0; j < states; ++j) {
          if (j >> q & 1) continue;
          const Complex &s0 = s[j], &s1 = s[j + (1 << q)], &d0 = d[j], &d1 = d[j + (1 << q)];
          t[q].x += d0.re * s1.im - d0.im * s1.re + d1.re * s0.im - d1.im * s0.re;
          t[q].y += d1.re * s0.re + d1.im * s0.im - d0.re * s1.re - d0.im * s1.im;
          t[q].z += d0.re * s0.im - d0.im * s0.re - d1.re * s1.im + d1.im * s1.re;
        }
    }
#pragma GCC unroll 4
    for (int q = 0; q < qubits; ++q) slopes_[piece.qubit + q] = t[q];
  }

  // Calls work(number of qubits, piece) until every qubit had its turn on every basis state.
  //
  // Qubits come two at a time, so that each amplitude is loaded and stored half as often. Near ones, whose partners are
  // close together, are done on one part of the state after another, which stays in the first cache meanwhile.
  template <typename Work>
  static HYPERLAX_INLINE void in_pieces(int n, const Work& work) {
    const int near = n < kNear ? n : kNear;
    for (int begin = 0; begin < 1 << n; begin += 1 << near) some_qubits(0, near, begin, begin + (1 << near), work);
    some_qubits(near, n, 0, 1 << n, work);
  }

  template <typename Work>
  static HYPERLAX_INLINE void some_qubits(int first, int last, int begin, int end, const Work& work) {
    int qubit = first;
    for (; qubit + 1 < last; qubit += 2) work(std::integral_constant<int, 2>{}, Piece{qubit, begin, end});
    if (qubit < last) work(std::integral_constant<int, 1>{}, Piece{qubit, begin, end});
  }

  // Permutes the state behind a layer and returns where it is now: with `keep` behind the old one, which stays as it is.
  HYPERLAX_INLINE Complex* permute(const Lane<T>& lane, int layer, Complex* state, bool keep) {
    const int64_t states = num_states_;
    const int32_t* source = lane.source + layer * lane.num_states;
    if (keep || moves_[layer]) {
      Complex* to = keep ? state + states : spare_.data();
      for (int k = 0; k < states; ++k) to[k] = state[source[k]];
      if (!keep) states_.swap(spare_);
      state = to;
    }
    flip(layer, state);
    return state;
  }

  // Undoes a permutation.
  HYPERLAX_INLINE void unpermute(const Lane<T>& lane, int layer, std::vector<Complex>& state) {
    const int32_t* source = lane.source + layer * lane.num_states;
    flip(layer, state.data());
    if (!moves_[layer]) return;
    for (int k = 0; k < num_states_; ++k) spare_[source[k]] = state[k];
    state.swap(spare_);
  }

  HYPERLAX_INLINE void flip(int layer, Complex* state) const {
    for (int64_t i = flips_[layer]; i < flips_[layer + 1]; ++i) {
      Complex& amplitude = state[flipped_[i]];
      amplitude = Complex{-amplitude.re, -amplitude.im};
    }
  }

  // Sums with all signs at once: x[k] <- sum_m (-1) ** popcount(k & m) x[m].
  HYPERLAX_INLINE void walsh_hadamard() {
    const int states = words_.size();
    for (int bit = 1; bit < states; bit *= 2)
      for (int block = 0; block < states; block += 2 * bit)
        for (int k = block; k < block + bit; ++k) {
          const Vec a = words_[k].v, b = words_[k + bit].v;
          words_[k].v = a + b;
          words_[k + bit].v = a - b;
        }
  }

  static HYPERLAX_INLINE T parity(int bits) { return __builtin_parity(bits) ? T(-1) : T(1); }

  // Returns (P psi)[k] of a Pauli word.
  static HYPERLAX_INLINE Complex word(const Lane<T>& lane, const Complex* state, int w, int k) {
    Complex s = state[k ^ lane.flips[w]];
    T sign = parity(k & lane.masks[w]);
    switch (lane.num_y[w] & 3) {  // times (-i) ** num_y
      case 1:
        return Complex{sign * s.im, -sign * s.re};
      case 2:
        return Complex{-sign * s.re, -sign * s.im};
      case 3:
        return Complex{-sign * s.im, sign * s.re};
      default:
        return Complex{sign * s.re, sign * s.im};
    }
  }

  static HYPERLAX_INLINE Vec expect(const Lane<T>& lane, const Complex* state, int w) {
    Vec total = {};
    for (int k = 0; k < 1 << lane.num_qubits; ++k) {
      Complex p = word(lane, state, w, k);
      total += state[k].re * p.re + state[k].im * p.im;
    }
    return total;
  }

  // Sets the dual, the weighted sum of all words on the state.
  HYPERLAX_INLINE void measure_back(const Lane<T>& lane, const Complex* state, int first, int count) {
    const int states = 1 << lane.num_qubits;
    for (int k = 0; k < states; ++k) words_[k].v = Vec{};
    for (int w = 0; w < lane.num_observables; ++w)
      if (lane.flips[w] == 0) words_[lane.masks[w]].v += load<T>(lane.weights + w * lane.num_samples + first, count);
    walsh_hadamard();
    for (int k = 0; k < states; ++k) dual_[k] = Complex{words_[k].v * state[k].re, words_[k].v * state[k].im};
    for (int w = 0; w < lane.num_observables; ++w) {
      if (lane.flips[w] == 0) continue;
      const Vec weight = load<T>(lane.weights + w * lane.num_samples + first, count);
      for (int k = 0; k < states; ++k) {
        Complex term = word(lane, state, w, k);
        dual_[k].re += weight * term.re;
        dual_[k].im += weight * term.im;
      }
    }
  }
};

}  // namespace hyperlax
