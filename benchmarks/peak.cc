// Multiply-adds that one core does at most: twelve independent chains of them in registers. Prints GFLOP/s.

#include <chrono>
#include <cstdio>

typedef float Vec __attribute__((vector_size(64)));

int main() {
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    Vec chains[12], factor = Vec{} + 0.9999f, term = Vec{} + 0.0001f;
    for (int i = 0; i < 12; ++i) chains[i] = Vec{} + 0.001f * i;
    const long rounds = 20000000;
    const auto start = std::chrono::steady_clock::now();
    for (long round = 0; round < rounds; ++round) {
      for (int i = 0; i < 12; ++i) chains[i] = chains[i] * factor + term;
      asm volatile("" ::: "memory");
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    Vec sum = {};
    for (int i = 0; i < 12; ++i) sum += chains[i];
    if (sum[0] < 0) return 1;  // so that nothing is left out
    const double rate = rounds * 12 * 2.0 * (sizeof(Vec) / sizeof(float)) / seconds / 1e9;
    if (rate > best) best = rate;
  }
  std::printf("%.1f\n", best);
}
