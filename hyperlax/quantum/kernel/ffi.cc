// XLA calls these two functions, each for float and double: all lanes and samples of a program in one call.
//
// The work is cut into chunks of a few vectors of samples of one lane, the same whatever the number of threads, lanes
// or devices; each chunk has its own sums, added up in order. So a lane's results are the same alone and in a batch.

#include "xla/ffi/api/ffi.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <new>

#include "states.h"

namespace ffi = xla::ffi;

namespace hyperlax {

constexpr int kVectorsPerChunk = 8;

// Several instruction sets in one library; the loader takes the best that the machine has.
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__) && !defined(HYPERLAX_NO_CLONES)
#define HYPERLAX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define HYPERLAX_CLONES
#endif

// Operands as XLA has them, of shapes (…, 3), (…, layers, qubits, rotations) five times, (…, layers, states) twice,
// (…, observables) three times, (…, parameters), (…, features, samples). What stands in front, by vmap, are the lanes.
template <ffi::DataType real>
struct Operands {
  ffi::Buffer<ffi::S32> sizes, axis;
  ffi::Buffer<real> constant;
  ffi::Buffer<ffi::S32> bias, scale, feature, source;
  ffi::Buffer<real> sign;
  ffi::Buffer<ffi::S32> flips, masks, num_y;
  ffi::Buffer<real> params, inputs;

  typedef ffi::NativeType<real> T;

  int64_t lanes() const { return sizes.element_count() / 3; }
  int64_t parameters() const { return params.dimensions().back(); }
  int64_t features() const { return inputs.dimensions().end()[-2]; }
  int64_t samples() const { return inputs.dimensions().back(); }
  int64_t observables() const { return flips.dimensions().back(); }

  Lane<T> lane(int64_t i) const {
    Lane<T> lane = {};
    const int32_t* own = sizes.typed_data() + 3 * i;
    const auto layers = axis.dimensions().end()[-3], qubits = axis.dimensions().end()[-2];
    const int64_t angles = layers * qubits * axis.dimensions().back(), tables = layers * source.dimensions().back();
    lane.num_layers = own[0], lane.num_qubits = own[1], lane.num_observables = own[2];
    lane.max_qubits = qubits, lane.max_rotations = axis.dimensions().back();
    lane.num_states = source.dimensions().back(), lane.num_params = parameters();
    lane.num_features = features(), lane.num_samples = samples();
    lane.axis = axis.typed_data() + i * angles;
    lane.constant = constant.typed_data() + i * angles;
    lane.bias = bias.typed_data() + i * angles;
    lane.scale = scale.typed_data() + i * angles;
    lane.feature = feature.typed_data() + i * angles;
    lane.source = source.typed_data() + i * tables;
    lane.sign = sign.typed_data() + i * tables;
    lane.flips = flips.typed_data() + i * observables();
    lane.masks = masks.typed_data() + i * observables();
    lane.num_y = num_y.typed_data() + i * observables();
    lane.params = params.typed_data() + i * parameters();
    lane.inputs = inputs.typed_data() + i * features() * samples();
    return lane;
  }
};

// Calls work(0) … work(count - 1) on the calling thread and on those of the pool that are free.
//
// The caller takes part and waits only for what others have begun: if every thread of the pool waits like this, each
// does its own work, and nothing is blocked for ever.
//
// Returns whether the memory sufficed.
bool in_parallel(ffi::ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& work) {
  struct Shared {
    std::function<void(int64_t)> work;
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<bool> suffices{true};
    int64_t count;
    std::mutex mutex;
    std::condition_variable all_done;

    void help() {
      for (int64_t i; (i = next.fetch_add(1)) < count;) {
        try {
          work(i);
        } catch (const std::bad_alloc&) {
          suffices = false;
        }
        if (done.fetch_add(1) + 1 == count) {
          std::lock_guard<std::mutex> lock(mutex);
          all_done.notify_all();
        }
      }
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  auto shared = std::make_shared<Shared>();
  shared->work = work;
  shared->count = count;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([shared] { shared->help(); });
  shared->help();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done.load() == count; });
  return shared->suffices;
}

struct Key {  // of what a thread has prepared
  int64_t call, lane;
};

int64_t next_call() {
  static std::atomic<int64_t> calls{0};
  return calls.fetch_add(1);
}

// What a thread works in, kept so that nothing is allocated again.
template <typename T>
Block<T>& own_block() {
  thread_local Block<T> block;
  return block;
}

// The vectors of one chunk.
template <typename T>
HYPERLAX_INLINE void forward_chunk(Block<T>& block, const Lane<T>& lane, Key key, int64_t begin, int64_t end,
                                   T* values) {
  block.begin(lane, key.call, key.lane, false);
  for (int64_t first = begin; first < end; first += Block<T>::kSamples)
    block.forward(lane, first, std::min<int64_t>(Block<T>::kSamples, end - first), values);
}

template <typename T>
HYPERLAX_INLINE void backward_chunk(Block<T>& block, const Lane<T>& lane, Key key, int64_t begin, int64_t end,
                                    T* by_params, T* by_input) {
  block.begin(lane, key.call, key.lane, true);
  block.begin_sums();
  for (int64_t first = begin; first < end; first += Block<T>::kSamples)
    block.backward(lane, first, std::min<int64_t>(Block<T>::kSamples, end - first), by_input);
  block.finish(lane, by_params);
}

#define HYPERLAX_CHUNKS(T)                                                                                            \
  HYPERLAX_CLONES void forward_of(Block<T>& block, const Lane<T>& lane, Key key, int64_t a, int64_t b, T* y) {        \
    forward_chunk(block, lane, key, a, b, y);                                                                         \
  }                                                                                                                   \
  HYPERLAX_CLONES void backward_of(Block<T>& block, const Lane<T>& lane, Key key, int64_t a, int64_t b, T* p, T* x) { \
    backward_chunk(block, lane, key, a, b, p, x);                                                                     \
  }
HYPERLAX_CHUNKS(float)
HYPERLAX_CHUNKS(double)

// The chunks of all lanes: chunk `number` is of samples `begin` to `end` of a lane.
struct Chunks {
  int64_t size, samples, each;

  Chunks(int64_t vector, int64_t samples)
      : size(kVectorsPerChunk * vector), samples(samples), each((samples + size - 1) / size) {}
  int64_t lane(int64_t number) const { return number / each; }
  int64_t begin(int64_t number) const { return number % each * size; }
  int64_t end(int64_t number) const { return std::min(begin(number) + size, samples); }
};

ffi::Error out_of_memory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for the states of circuits");
}

template <ffi::DataType real>
ffi::Error forward(ffi::ThreadPool pool, Operands<real> all, ffi::ResultBuffer<real> values) {
  typedef ffi::NativeType<real> T;
  T* out = values->typed_data();
  std::memset(out, 0, values->size_bytes());
  const Chunks chunks(Block<T>::kSamples, all.samples());
  const int64_t call = next_call();
  const bool suffices = in_parallel(pool, all.lanes() * chunks.each, [&](int64_t number) {
    const int64_t i = chunks.lane(number);
    if (all.lane(i).num_layers > 0)
      forward_of(own_block<T>(), all.lane(i), {call, i}, chunks.begin(number), chunks.end(number),
                 out + i * all.observables() * all.samples());
  });
  return suffices ? ffi::Error::Success() : out_of_memory();
}

template <ffi::DataType real>
ffi::Error backward(ffi::ThreadPool pool, Operands<real> all, ffi::Buffer<real> weights,
                    ffi::ResultBuffer<real> by_params, ffi::ResultBuffer<real> by_input) {
  typedef ffi::NativeType<real> T;
  T* input = by_input->typed_data();
  std::memset(input, 0, by_input->size_bytes());
  const int64_t size = all.parameters();
  const Chunks chunks(Block<T>::kSamples, all.samples());
  std::vector<T> sums(all.lanes() * chunks.each * size);
  const int64_t call = next_call();
  const bool suffices = in_parallel(pool, all.lanes() * chunks.each, [&](int64_t number) {
    const int64_t i = chunks.lane(number);
    Lane<T> lane = all.lane(i);
    if (lane.num_layers == 0) return;  // no circuit at all: what a branch that is not taken is given
    lane.weights = weights.typed_data() + i * all.observables() * all.samples();
    backward_of(own_block<T>(), lane, {call, i}, chunks.begin(number), chunks.end(number), sums.data() + number * size,
                input + i * all.features() * all.samples());
  });
  for (int64_t i = 0; i < all.lanes(); ++i) {
    T* total = by_params->typed_data() + i * size;
    std::fill_n(total, size, T(0));
    for (int64_t chunk = i * chunks.each; chunk < (i + 1) * chunks.each; ++chunk)
      for (int64_t p = 0; p < size; ++p) total[p] += sums[chunk * size + p];
  }
  return suffices ? ffi::Error::Success() : out_of_memory();
}

// The same with every operand an argument of its own, as XLA passes them.
#define HYPERLAX_OPERANDS                                                                                            \
  ffi::Buffer<ffi::S32> sizes, ffi::Buffer<ffi::S32> axis, ffi::Buffer<real> constant, ffi::Buffer<ffi::S32> bias,   \
      ffi::Buffer<ffi::S32> scale, ffi::Buffer<ffi::S32> feature, ffi::Buffer<ffi::S32> source,                      \
      ffi::Buffer<real> sign, ffi::Buffer<ffi::S32> flips, ffi::Buffer<ffi::S32> masks, ffi::Buffer<ffi::S32> num_y, \
      ffi::Buffer<real> params, ffi::Buffer<real> inputs
#define HYPERLAX_ALL \
  Operands<real> { sizes, axis, constant, bias, scale, feature, source, sign, flips, masks, num_y, params, inputs }

template <ffi::DataType real>
ffi::Error forward_call(ffi::ThreadPool pool, HYPERLAX_OPERANDS, ffi::ResultBuffer<real> values) {
  return forward<real>(pool, HYPERLAX_ALL, values);
}

template <ffi::DataType real>
ffi::Error backward_call(ffi::ThreadPool pool, HYPERLAX_OPERANDS, ffi::Buffer<real> weights,
                         ffi::ResultBuffer<real> by_params, ffi::ResultBuffer<real> by_input) {
  return backward<real>(pool, HYPERLAX_ALL, weights, by_params, by_input);
}

template <ffi::DataType real>
auto operands() {
  typedef ffi::Buffer<ffi::S32> Integers;
  typedef ffi::Buffer<real> Reals;
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .template Arg<Integers>()
      .template Arg<Integers>()
      .template Arg<Reals>()
      .template Arg<Integers>()
      .template Arg<Integers>()
      .template Arg<Integers>()
      .template Arg<Integers>()
      .template Arg<Reals>()
      .template Arg<Integers>()
      .template Arg<Integers>()
      .template Arg<Integers>()
      .template Arg<Reals>()
      .template Arg<Reals>();
}

template <ffi::DataType real>
auto forward_binding() {
  return operands<real>().template Ret<ffi::Buffer<real>>();
}

template <ffi::DataType real>
auto backward_binding() {
  return operands<real>()
      .template Arg<ffi::Buffer<real>>()
      .template Ret<ffi::Buffer<real>>()
      .template Ret<ffi::Buffer<real>>();
}

}  // namespace hyperlax

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_forward_f32, hyperlax::forward_call<ffi::F32>,
                              hyperlax::forward_binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_forward_f64, hyperlax::forward_call<ffi::F64>,
                              hyperlax::forward_binding<ffi::F64>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_backward_f32, hyperlax::backward_call<ffi::F32>,
                              hyperlax::backward_binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_backward_f64, hyperlax::backward_call<ffi::F64>,
                              hyperlax::backward_binding<ffi::F64>());
#pragma GCC visibility pop
