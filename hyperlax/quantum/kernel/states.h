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

#include "rotations.h"

namespace hyperlax {

template <typename T>
class Block {
  typedef typename Types<T>::Vec Vec;
  typedef typename Rotations<T>::Quaternion Quaternion;
  typedef typename Rotations<T>::Slopes Slopes;

  static constexpr int kNear = 6;  // qubits whose rotations are done on one piece of the state after another

 public:
  static constexpr int kSamples = samples_of<T>();

  // Prepares what all samples of a lane share, unless the last call was for the same lane of the same call of XLA's.
  HYPERLAX_INLINE void begin(const Lane<T>& lane, int64_t call, int64_t number) {
    if (call == call_ && number == number_) return;
    call_ = call, number_ = number;
    const int states = 1 << lane.num_qubits;
    rotations_.begin(lane);
    flipped_.clear();
    flips_.assign(1, 0);
    moves_.assign(lane.num_layers, 0);
    for (int layer = 0; layer < lane.num_layers; ++layer) {
      for (int k = 0; k < states; ++k) {
        const int64_t at = int64_t(layer) * lane.num_states + k;
        moves_[layer] |= lane.source[at] != k;
        if (lane.sign[at] < 0) flipped_.push_back(k);
      }
      flips_.push_back(flipped_.size());
    }
    state_.resize(states);
    dual_.resize(states);
    words_.resize(states);
  }

  // Simulates `count` samples from number `first` on, and writes (observables, samples) values.
  HYPERLAX_INLINE void forward(const Lane<T>& lane, int first, int count, T* values) {
    run(lane, first, count);
    for (size_t k = 0; k < state_.size(); ++k) words_[k].v = state_[k].re * state_[k].re + state_[k].im * state_[k].im;
    walsh_hadamard();
    for (int w = 0; w < lane.num_observables; ++w) {
      const Vec value = lane.flips[w] == 0 ? words_[lane.masks[w]].v : expect(lane, w);
      store<T>(values + w * lane.num_samples + first, count, value);
    }
  }

  // Prepares the sums of the gradient.
  HYPERLAX_INLINE void begin_sums() { rotations_.begin_sums(); }

  // Writes the gradient by inputs, (features, samples), and adds to the sums that `finish` returns.
  HYPERLAX_INLINE void backward(const Lane<T>& lane, int first, int count, T* by_input) {
    run(lane, first, count);
    measure_back(lane, first, count);
    for (int layer = lane.num_layers - 1; layer >= 0; --layer) {
      unpermute(lane, layer, state_);
      unpermute(lane, layer, dual_);
      for (int qubit = 0; qubit < lane.num_qubits; ++qubit) slopes_[qubit] = Slopes{};
      untwist(lane.num_qubits, rotations_.products(lane, layer), layer > 0);
      for (int qubit = lane.num_qubits - 1; qubit >= 0; --qubit)
        rotations_.lead_back(lane, layer, qubit, slopes_[qubit]);
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
  struct Piece {  // qubits, and the basis states on which they are rotated
    int qubit, qubits, begin, end;
  };

  int64_t call_ = -1, number_ = -1;
  Rotations<T> rotations_;
  std::vector<Complex> state_, dual_, spare_;
  std::vector<Number> words_;         // by basis state, or by the mask of a word of I and Z
  Slopes slopes_[32];                 // by qubit
  std::vector<int> flipped_, flips_;  // basis states whose sign changes, of all layers; where each layer's begin
  std::vector<char> moves_;           // by layer: whether it does more than change signs

  // Applies a rotation to the amplitudes of |0> and |1>.
  static HYPERLAX_INLINE void apply(const Quaternion& q, Complex& zero, Complex& one) {
    Complex u = zero, v = one;
    zero.re = q.a * u.re + q.z * u.im - q.y * v.re + q.x * v.im;
    zero.im = q.a * u.im - q.z * u.re - q.y * v.im - q.x * v.re;
    one.re = q.y * u.re + q.x * u.im + q.a * v.re - q.z * v.im;
    one.im = q.y * u.im - q.x * u.re + q.a * v.im + q.z * v.re;
  }

  HYPERLAX_INLINE void run(const Lane<T>& lane, int first, int count) {
    rotations_.run(lane, first, count);
    // The first layer makes a product state.
    state_[0] = Complex{Vec{} + T(1), Vec{}};
    for (int qubit = 0; qubit < lane.num_qubits; ++qubit) {
      const Quaternion q = rotations_.products(lane, 0)[qubit];
      for (int k = 0; k < 1 << qubit; ++k) {
        Complex u = state_[k];
        state_[k + (1 << qubit)] = Complex{q.y * u.re + q.x * u.im, q.y * u.im - q.x * u.re};
        state_[k] = Complex{q.a * u.re + q.z * u.im, q.a * u.im - q.z * u.re};
      }
    }
    permute(lane, 0);
    for (int layer = 1; layer < lane.num_layers; ++layer) {
      twist(lane.num_qubits, rotations_.products(lane, layer));
      permute(lane, layer);
    }
  }

  // Rotates all qubits.
  HYPERLAX_INLINE void twist(int n, const Quaternion* rotations) {
    for (Piece piece = first_piece(n); piece.qubit < n; piece = next_piece(n, piece))
      if (piece.qubits == 2)
        twist_piece<2>(piece, rotations + piece.qubit);
      else
        twist_piece<1>(piece, rotations + piece.qubit);
  }

  template <int qubits>
  HYPERLAX_INLINE void twist_piece(const Piece& piece, const Quaternion* rotations) {
    const int bit = 1 << piece.qubit, states = 1 << qubits;
    Complex* state = state_.data();
    for (int i = piece.begin >> qubits; i < piece.end >> qubits; ++i) {
      const int first = i + (states - 1) * (i & -bit);
      Complex s[states];
#pragma GCC unroll 4
      for (int j = 0; j < states; ++j) s[j] = state[first + j * bit];
#pragma GCC unroll 4
      for (int q = 0; q < qubits; ++q)
#pragma GCC unroll 4
        for (int j = 0; j < states; ++j)
          if (!(j >> q & 1)) apply(rotations[q], s[j], s[j + (1 << q)]);
#pragma GCC unroll 4
      for (int j = 0; j < states; ++j) state[first + j * bit] = s[j];
    }
  }

  // Sums the slopes of all qubits and, if `undo`, takes their rotations off both states.
  HYPERLAX_INLINE void untwist(int n, const Quaternion* rotations, bool undo) {
    for (Piece piece = first_piece(n); piece.qubit < n; piece = next_piece(n, piece))
      if (piece.qubits == 2)
        untwist_piece<2>(piece, rotations + piece.qubit, undo);
      else
        untwist_piece<1>(piece, rotations + piece.qubit, undo);
  }

  template <int qubits>
  HYPERLAX_INLINE void untwist_piece(const Piece& piece, const Quaternion* rotations, bool undo) {
    const int bit = 1 << piece.qubit, states = 1 << qubits;
    Complex *state = state_.data(), *dual = dual_.data();
    Quaternion back[qubits];
    Slopes t[qubits];
#pragma GCC unroll 4
    for (int q = 0; q < qubits; ++q) {
      back[q] = {rotations[q].a, -rotations[q].x, -rotations[q].y, -rotations[q].z};
      t[q] = slopes_[piece.qubit + q];
    }
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
          Complex &s0 = s[j], &s1 = s[j + (1 << q)], &d0 = d[j], &d1 = d[j + (1 << q)];
          t[q].x += d0.re * s1.im - d0.im * s1.re + d1.re * s0.im - d1.im * s0.re;
          t[q].y += d1.re * s0.re + d1.im * s0.im - d0.re * s1.re - d0.im * s1.im;
          t[q].z += d0.re * s0.im - d0.im * s0.re - d1.re * s1.im + d1.im * s1.re;
          if (!undo) continue;
          apply(back[q], s0, s1);
          apply(back[q], d0, d1);
        }
      if (!undo) continue;
#pragma GCC unroll 4
      for (int j = 0; j < states; ++j) state[first + j * bit] = s[j], dual[first + j * bit] = d[j];
    }
#pragma GCC unroll 4
    for (int q = 0; q < qubits; ++q) slopes_[piece.qubit + q] = t[q];
  }

  // Qubits come two at a time, so that each amplitude is loaded and stored half as often. Near ones, whose partners are
  // close together, are done on one part of the state after another, which stays in the first cache meanwhile.
  static HYPERLAX_INLINE Piece first_piece(int n) { return {0, n == 1 ? 1 : 2, 0, 1 << (n < kNear ? n : kNear)}; }
  static HYPERLAX_INLINE Piece next_piece(int n, Piece piece) {
    const int near = n < kNear ? n : kNear;
    piece.qubit += piece.qubits;
    if (piece.qubit == near && piece.end < 1 << n) piece = {0, 2, piece.end, piece.end + (1 << near)};
    if (piece.qubit >= near) piece.begin = 0, piece.end = 1 << n;
    piece.qubits = n - piece.qubit == 1 ? 1 : 2;
    return piece;
  }

  HYPERLAX_INLINE void permute(const Lane<T>& lane, int layer) {
    if (moves_[layer]) {
      const int32_t* source = lane.source + int64_t(layer) * lane.num_states;
      spare_.resize(state_.size());
      for (size_t k = 0; k < state_.size(); ++k) spare_[k] = state_[source[k]];
      state_.swap(spare_);
    }
    flip(layer, state_);
  }

  HYPERLAX_INLINE void unpermute(const Lane<T>& lane, int layer, std::vector<Complex>& state) {
    flip(layer, state);
    if (moves_[layer]) {
      const int32_t* source = lane.source + int64_t(layer) * lane.num_states;
      spare_.resize(state.size());
      for (size_t k = 0; k < state.size(); ++k) spare_[source[k]] = state[k];
      state.swap(spare_);
    }
  }

  HYPERLAX_INLINE void flip(int layer, std::vector<Complex>& state) {
    for (int i = flips_[layer]; i < flips_[layer + 1]; ++i) {
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
  HYPERLAX_INLINE Complex word(const Lane<T>& lane, int w, int k) const {
    Complex s = state_[k ^ lane.flips[w]];
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

  HYPERLAX_INLINE Vec expect(const Lane<T>& lane, int w) const {
    Vec total = {};
    for (int k = 0; k < 1 << lane.num_qubits; ++k) {
      Complex p = word(lane, w, k);
      total += state_[k].re * p.re + state_[k].im * p.im;
    }
    return total;
  }

  // Sets the dual, the weighted sum of all words on the state.
  HYPERLAX_INLINE void measure_back(const Lane<T>& lane, int first, int count) {
    const int states = 1 << lane.num_qubits;
    for (int k = 0; k < states; ++k) words_[k].v = Vec{};
    for (int w = 0; w < lane.num_observables; ++w)
      if (lane.flips[w] == 0) words_[lane.masks[w]].v += load<T>(lane.weights + w * lane.num_samples + first, count);
    walsh_hadamard();
    for (int k = 0; k < states; ++k) dual_[k] = Complex{words_[k].v * state_[k].re, words_[k].v * state_[k].im};
    for (int w = 0; w < lane.num_observables; ++w) {
      if (lane.flips[w] == 0) continue;
      const Vec weight = load<T>(lane.weights + w * lane.num_samples + first, count);
      for (int k = 0; k < states; ++k) {
        Complex term = word(lane, w, k);
        dual_[k].re += weight * term.re;
        dual_[k].im += weight * term.im;
      }
    }
  }
};

}  // namespace hyperlax
