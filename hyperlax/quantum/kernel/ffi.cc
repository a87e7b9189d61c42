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

#include "states.h"

namespace ffi = xla::ffi;

namespace hyperlax {

constexpr int kVectorsPerChunk = 8;

// Several instruction sets in one library; the loader takes the best that the machine has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(HYPERLAX_SANITIZE)
#define HYPERLAX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define HYPERLAX_CLONES
#endif

// Operands as XLA has them, of shapes (…, 3), (…, layers, qubits, rotations) four times, (…, layers, states) twice,
// (…, observables) three times, (…, features, samples). What stands in front, by vmap, are the lanes.
template <ffi::DataType real>
struct Operands {
  ffi::Buffer<ffi::S32> sizes, axis, feature;
  ffi::Buffer<real> offset, scale;
  ffi::Buffer<ffi::S32> source;
  ffi::Buffer<real> sign;
  ffi::Buffer<ffi::S32> flips, masks, num_y;
  ffi::Buffer<real> inputs;

  typedef ffi::NativeType<real> T;

  int64_t lanes() const { return sizes.element_count() / 3; }
  int64_t angles() const {
    return axis.dimensions().end()[-3] * axis.dimensions().end()[-2] * axis.dimensions().back();
  }
  int64_t features() const { return inputs.dimensions().end()[-2]; }
  int64_t samples() const { return inputs.dimensions().back(); }
  int64_t observables() const { return flips.dimensions().back(); }

  Lane<T> lane(int64_t i) const {
    Lane<T> lane = {};
    const int32_t* own = sizes.typed_data() + 3 * i;
    const int64_t words = observables(), tables = source.dimensions().end()[-2] * source.dimensions().back();
    lane.num_layers = own[0], lane.num_qubits = own[1], lane.num_observables = own[2];
    lane.max_qubits = axis.dimensions().end()[-2], lane.max_rotations = axis.dimensions().back();
    lane.num_states = source.dimensions().back(), lane.num_features = features(), lane.num_samples = samples();
    lane.axis = axis.typed_data() + i * angles();
    lane.feature = feature.typed_data() + i * angles();
    lane.offset = offset.typed_data() + i * angles();
    lane.scale = scale.typed_data() + i * angles();
    lane.source = source.typed_data() + i * tables;
    lane.sign = sign.typed_data() + i * tables;
    lane.flips = flips.typed_data() + i * words;
    lane.masks = masks.typed_data() + i * words;
    lane.num_y = num_y.typed_data() + i * words;
    lane.inputs = inputs.typed_data() + i * features() * samples();
    return lane;
  }
};

// Calls work(0) … work(count - 1) on the calling thread and on those of the pool that are free.
//
// The caller takes part and waits only for what others have begun: if every thread of the pool waits like this, each
// does its own work, and nothing is blocked for ever.
void in_parallel(ffi::ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& work) {
  struct Shared {
    std::function<void(int64_t)> work;
    std::atomic<int64_t> next{0}, done{0};
    int64_t count;
    std::mutex mutex;
    std::condition_variable all_done;

    void help() {
      for (int64_t i; (i = next.fetch_add(1)) < count;) {
        work(i);
        if (done.fetch_add(1) + 1 == count) {
          std::lock_guard<std::mutex> lock(mutex);
          all_done.notify_all();
        }
      }
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  if (helpers <= 0) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  auto shared = std::make_shared<Shared>();
  shared->work = work;
  shared->count = count;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([shared] { shared->help(); });
  shared->help();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done.load() == count; });
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
  block.begin(lane, key.call, key.lane);
  for (int64_t first = begin; first < end; first += Block<T>::kSamples)
    block.forward(lane, first, std::min<int64_t>(Block<T>::kSamples, end - first), values);
}

template <typename T>
HYPERLAX_INLINE void backward_chunk(Block<T>& block, const Lane<T>& lane, Key key, int64_t begin, int64_t end,
                                    T* by_offset, T* by_scale, T* by_input) {
  block.begin(lane, key.call, key.lane);
  block.begin_sums();
  for (int64_t first = begin; first < end; first += Block<T>::kSamples)
    block.backward(lane, first, std::min<int64_t>(Block<T>::kSamples, end - first), by_input);
  block.finish(lane, by_offset, by_scale);
}

#define HYPERLAX_CHUNKS(T)                                                                                          \
  HYPERLAX_CLONES void forward_of(Block<T>& block, const Lane<T>& lane, Key key, int64_t a, int64_t b, T* values) { \
    forward_chunk(block, lane, key, a, b, values);                                                                  \
  }                                                                                                                 \
  HYPERLAX_CLONES void backward_of(Block<T>& block, const Lane<T>& lane, Key key, int64_t a, int64_t b, T* o, T* s, \
                                   T* x) {                                                                          \
    backward_chunk(block, lane, key, a, b, o, s, x);                                                                \
  }
HYPERLAX_CHUNKS(float)
HYPERLAX_CHUNKS(double)

template <ffi::DataType real>
ffi::Error forward(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> sizes, ffi::Buffer<ffi::S32> axis,
                   ffi::Buffer<ffi::S32> feature, ffi::Buffer<real> offset, ffi::Buffer<real> scale,
                   ffi::Buffer<ffi::S32> source, ffi::Buffer<real> sign, ffi::Buffer<ffi::S32> flips,
                   ffi::Buffer<ffi::S32> masks, ffi::Buffer<ffi::S32> num_y, ffi::Buffer<real> inputs,
                   ffi::ResultBuffer<real> values) {
  typedef ffi::NativeType<real> T;
  const Operands<real> all{sizes, axis, feature, offset, scale, source, sign, flips, masks, num_y, inputs};
  T* out = values->typed_data();
  std::memset(out, 0, values->size_bytes());
  const int64_t size = kVectorsPerChunk * Block<T>::kSamples, samples = all.samples();
  const int64_t chunks = (samples + size - 1) / size;
  const int64_t call = next_call();
  in_parallel(pool, all.lanes() * chunks, [&](int64_t item) {
    const int64_t lane = item / chunks, begin = item % chunks * size;
    forward_of(own_block<T>(), all.lane(lane), {call, lane}, begin, std::min(begin + size, samples),
               out + lane * all.observables() * samples);
  });
  return ffi::Error::Success();
}

template <ffi::DataType real>
ffi::Error backward(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> sizes, ffi::Buffer<ffi::S32> axis,
                    ffi::Buffer<ffi::S32> feature, ffi::Buffer<real> offset, ffi::Buffer<real> scale,
                    ffi::Buffer<ffi::S32> source, ffi::Buffer<real> sign, ffi::Buffer<ffi::S32> flips,
                    ffi::Buffer<ffi::S32> masks, ffi::Buffer<ffi::S32> num_y, ffi::Buffer<real> inputs,
                    ffi::Buffer<real> weights, ffi::ResultBuffer<real> by_offset, ffi::ResultBuffer<real> by_scale,
                    ffi::ResultBuffer<real> by_input) {
  typedef ffi::NativeType<real> T;
  const Operands<real> all{sizes, axis, feature, offset, scale, source, sign, flips, masks, num_y, inputs};
  T* input = by_input->typed_data();
  std::memset(input, 0, by_input->size_bytes());
  const int64_t size = kVectorsPerChunk * Block<T>::kSamples, samples = all.samples(), angles = all.angles();
  const int64_t chunks = (samples + size - 1) / size;
  std::vector<T> sums(2 * all.lanes() * chunks * angles);
  const int64_t call = next_call();
  in_parallel(pool, all.lanes() * chunks, [&](int64_t item) {
    const int64_t i = item / chunks, begin = item % chunks * size;
    Lane<T> lane = all.lane(i);
    lane.weights = weights.typed_data() + i * all.observables() * samples;
    T* own = sums.data() + 2 * item * angles;
    backward_of(own_block<T>(), lane, {call, i}, begin, std::min(begin + size, samples), own, own + angles,
                input + i * all.features() * samples);
  });
  for (int64_t i = 0; i < all.lanes(); ++i) {
    T *offsets = by_offset->typed_data() + i * angles, *scales = by_scale->typed_data() + i * angles;
    std::fill_n(offsets, angles, T(0));
    std::fill_n(scales, angles, T(0));
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const T* own = sums.data() + 2 * (i * chunks + chunk) * angles;
      for (int64_t a = 0; a < angles; ++a) offsets[a] += own[a], scales[a] += own[angles + a];
    }
  }
  return ffi::Error::Success();
}

template <ffi::DataType real>
auto operands() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<real>>()
      .template Arg<ffi::Buffer<real>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<real>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<ffi::S32>>()
      .template Arg<ffi::Buffer<real>>();
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
      .template Ret<ffi::Buffer<real>>()
      .template Ret<ffi::Buffer<real>>();
}

}  // namespace hyperlax

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_forward_f32, hyperlax::forward<ffi::F32>, hyperlax::forward_binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_forward_f64, hyperlax::forward<ffi::F64>, hyperlax::forward_binding<ffi::F64>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_backward_f32, hyperlax::backward<ffi::F32>,
                              hyperlax::backward_binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(hyperlax_backward_f64, hyperlax::backward<ffi::F64>,
                              hyperlax::backward_binding<ffi::F64>());
#pragma GCC visibility pop
