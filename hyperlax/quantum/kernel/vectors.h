// Vectors of samples, and sines and cosines of them.
//
// They are vector extensions of GCC and Clang, so that one source serves every instruction set.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace hyperlax {

#define HYPERLAX_INLINE inline __attribute__((always_inline))

constexpr int kBytes = 64;  // of a vector: one register of AVX-512, two of AVX2, four of SSE or NEON

template <typename T>
struct Types;
template <>
struct Types<float> {
  typedef float Vec __attribute__((vector_size(kBytes), aligned(kBytes)));
};
template <>
struct Types<double> {
  typedef double Vec __attribute__((vector_size(kBytes), aligned(kBytes)));
};

// Number of samples in a vector.
template <typename T>
constexpr int samples_of() {
  return kBytes / sizeof(T);
}

// Reads `count` numbers; the others of the vector are zero.
template <typename T>
HYPERLAX_INLINE typename Types<T>::Vec load(const T* from, int count) {
  typename Types<T>::Vec v = {};
  if (count == samples_of<T>())
    std::memcpy(&v, from, kBytes);
  else
    std::memcpy(&v, from, count * sizeof(T));
  return v;
}

// Writes the first `count` numbers of a vector.
template <typename T>
HYPERLAX_INLINE void store(T* to, int count, typename Types<T>::Vec v) {
  if (count == samples_of<T>())
    std::memcpy(to, &v, kBytes);
  else
    std::memcpy(to, &v, count * sizeof(T));
}

// Sums a vector, always in the same order.
template <typename T>
HYPERLAX_INLINE T sum(typename Types<T>::Vec v) {
  typedef T Half __attribute__((vector_size(kBytes / 2), aligned(kBytes / 2)));
  typedef T Quarter __attribute__((vector_size(kBytes / 4), aligned(kBytes / 4)));
  Half h[2];
  std::memcpy(h, &v, kBytes);
  h[0] += h[1];
  Quarter q[2];
  std::memcpy(q, h, kBytes / 2);
  q[0] += q[1];
  T total = 0;
  for (int i = 0; i < samples_of<T>() / 4; ++i) total += q[0][i];
  return total;
}

// Sine and cosine of x, or both with the other sign: for what they make, a rotation, that is a phase nobody sees.
//
// What is left of x to the nearest multiple of pi goes into minimax polynomials; no digit is lost up to 8192.
HYPERLAX_INLINE void sine_cosine(Types<float>::Vec x, Types<float>::Vec& sine, Types<float>::Vec& cosine) {
  typedef Types<float>::Vec Vec;
  Vec n = (x * 0.318309886183790672f + 12582912.0f) - 12582912.0f;  // to the nearest integer
  Vec r = ((x - n * 3.140625f) - n * 9.67502593994140625e-4f) - n * 1.509957990e-7f;
  Vec z = r * r;
  Vec s = -0.16666657092f + z * (0.0083330171928f + z * (-0.00019806608085f + z * 2.600039033e-6f));
  Vec c = 0.041666655769f + z * (-0.0013888569061f + z * (2.4769297563e-5f + z * -2.6193676218e-7f));
  sine = r + r * z * s;
  cosine = (1.0f - 0.5f * z) + z * z * c;
}

HYPERLAX_INLINE void sine_cosine(Types<double>::Vec x, Types<double>::Vec& sine, Types<double>::Vec& cosine) {
  typedef Types<double>::Vec Vec;
  Vec n = (x * 0.318309886183790671538 + 6755399441055744.0) - 6755399441055744.0;
  Vec r = ((x - n * 3.14159250259399414062) - n * 1.50995788317231927067e-7) - n * 1.07806050599553095028e-14;
  Vec z = r * r;
  Vec s = -7.6427120332559740436e-13 + z * 2.7184870903124742315e-15;
  s = -2.5052106605917080995e-8 + z * (1.6058927801345231272e-10 + z * s);
  s = 8.3333333333331138467e-3 + z * (-1.9841269841185909614e-4 + z * (2.7557319207778707549e-6 + z * s));
  s = -0.16666666666666664549 + z * s;
  Vec c = -1.146363399083961489e-11 + z * 4.6161185710773168657e-14;
  c = -2.7557317067622826301e-7 + z * (2.0876592542017934068e-9 + z * c);
  c = 4.1666666666665832306e-2 + z * (-1.3888888888830012304e-3 + z * (2.4801587285775710621e-5 + z * c));
  sine = r + r * z * s;
  cosine = (1.0 - 0.5 * z) + z * z * c;
}

// Whether sine_cosine loses digits, by the square of its argument.
template <typename T>
HYPERLAX_INLINE bool is_far(T square) {
  return square > T(8192.0 * 8192.0);
}
template <typename T>
HYPERLAX_INLINE bool any_is_far(typename Types<T>::Vec squares) {
  bool far = false;
  for (int i = 0; i < samples_of<T>(); ++i) far |= is_far<T>(squares[i]);
  return far;
}

}  // namespace hyperlax
