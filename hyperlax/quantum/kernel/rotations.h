// What turns each qubit in each layer: the angles, their products, and the gradients that come back to them.

#pragma once

#include <vector>

#include "vectors.h"

namespace hyperlax {

// One lane's tape and operands. Arrays have the program's padded sizes; the lane uses its own part of them.
template <typename T>
struct Lane {
  int num_layers, num_qubits, num_observables;  // its own
  int max_qubits, max_rotations;                // sizes of the arrays
  int num_features, num_params;
  int64_t num_states, num_samples;
  const int32_t* axis;     // (layers, qubits, rotations)
  const T* constant;       // likewise, as the next three: angle = constant + bias + scale * input
  const int32_t* bias;     // which parameter is added; -1 for none
  const int32_t* scale;    // which multiplies the input; -1 for the input as it is
  const int32_t* feature;  // which input; -1 for none
  const int32_t* source;   // (layers, states)
  const T* sign;
  const int32_t* flips;  // (observables)
  const int32_t* masks;
  const int32_t* num_y;
  const T* params;   // (parameters)
  const T* inputs;   // (features, samples)
  const T* weights;  // (observables, samples): the gradient by the values; backward only

  int rotation(int layer, int qubit) const { return (layer * max_qubits + qubit) * max_rotations; }
  T offset(int rotation) const { return constant[rotation] + (bias[rotation] < 0 ? T(0) : params[bias[rotation]]); }
};

// The rotations of one lane, for one vector of samples at a time.
template <typename T>
class Rotations {
  typedef typename Types<T>::Vec Vec;
  static constexpr int kSamples = samples_of<T>();

 public:
  struct Quaternion {  // a - i (x X + y Y + z Z)
    Vec a, x, y, z;
  };
  struct Slopes {  // of the loss by a small rotation about each axis
    Vec x, y, z;
  };

  // Prepares what all samples share: every angle that no input changes.
  HYPERLAX_INLINE void begin(const Lane<T>& lane) {
    turn_fixed(lane);
    steps_.clear();
    for (int layer = 0; layer < lane.num_layers; ++layer)
      for (int qubit = 0; qubit < lane.num_qubits; ++qubit)
        for (int r = 0; r < lane.max_rotations; ++r)
          add_step(lane, layer * lane.num_qubits + qubit, lane.rotation(layer, qubit) + r);
    for (Step& step : steps_)
      if (step.axis == kFixed) set_matrix(step.fixed);
    turns_.resize(steps_.size());
    products_.resize(lane.num_layers * lane.num_qubits);
    inputs_.resize(lane.num_features);
  }

  // Prepares the sums of the gradient.
  HYPERLAX_INLINE void begin_sums() { sums_.assign(steps_.size(), Sums{}); }

  // Computes the products of `count` samples from number `first` on.
  HYPERLAX_INLINE void run(const Lane<T>& lane, int first, int count) {
    for (int f = 0; f < lane.num_features; ++f)
      inputs_[f] = Input{load<T>(lane.inputs + f * lane.num_samples + first, count), Vec{}};
    turn_all();
    multiply();
    next_ = steps_.size();
  }

  // Returns the rotations of a layer, one a qubit.
  HYPERLAX_INLINE const Quaternion* products(const Lane<T>& lane, int layer) const {
    return &products_[layer * lane.num_qubits];
  }

  // Gives the rotations of one qubit in one layer their shares of the gradient. To be called from the last to the
  // first.
  HYPERLAX_INLINE void lead_back(const Lane<T>& lane, int layer, int qubit, Slopes t) {
    for (; next_ > 0 && steps_[next_ - 1].product == layer * lane.num_qubits + qubit; --next_) lead_back(next_ - 1, t);
  }

  // Writes the gradient by the inputs of these samples, (features, samples).
  HYPERLAX_INLINE void store_slopes(const Lane<T>& lane, int first, int count, T* by_input) const {
    for (int f = 0; f < lane.num_features; ++f)
      store<T>(by_input + f * lane.num_samples + first, count, inputs_[f].slope);
  }

  // Writes the gradient by parameters since `begin_sums`.
  HYPERLAX_INLINE void finish(const Lane<T>& lane, T* by_params) const {
    for (int p = 0; p < lane.num_params; ++p) by_params[p] = 0;
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      T t[3] = {sum<T>(sums_[i].v[0]), sum<T>(sums_[i].v[1]), sum<T>(sums_[i].v[2])};
      if (step.axis != kFixed) {
        if (lane.bias[step.place] >= 0) by_params[lane.bias[step.place]] += t[0];
        if (lane.scale[step.place] >= 0) by_params[lane.scale[step.place]] += t[1];
        continue;
      }
      for (int place = step.place + step.count - 1; place >= step.place; --place) {
        const int axis = lane.axis[place], next = (axis + 1) % 3, last = (axis + 2) % 3;
        if (lane.bias[place] >= 0) by_params[lane.bias[place]] += t[axis];
        const T half_c = fixed_c_[place], half_s = fixed_s_[place], before = t[next];
        const T c = 1 - 2 * half_s * half_s, s = 2 * half_s * half_c;
        t[next] = c * before + s * t[last];
        t[last] = c * t[last] - s * before;
      }
    }
  }

 private:
  static constexpr int kFixed = 3;

  struct Turn {  // one rotation: cosine and sine of half its angle
    Vec c, s;
  };
  struct Fixed {  // the same for all samples, and what it does to slopes
    T a, x, y, z, matrix[9];
  };
  // What a qubit does in a layer is a sequence of steps: a rotation whose angle an input changes, or all rotations
  // between two of those as one.
  struct Step {
    int product;       // which it belongs to
    int axis;          // 0, 1, 2; kFixed if no input changes it
    int place, count;  // which rotations of the lane
    int feature;
    T offset, scale;
    Fixed fixed;
  };
  struct Sums {  // over samples: of the slope by the angle and that times the input; of the slopes at what is fixed
    Vec v[3];
  };
  struct Input {
    Vec value, slope;  // and the gradient by it
  };

  std::vector<Step> steps_;
  std::vector<Turn> turns_;  // by step
  std::vector<Sums> sums_;   // by step
  std::vector<Quaternion> products_;
  std::vector<Input> inputs_;
  std::vector<T> fixed_c_, fixed_s_;  // by rotation of the lane: cosine and sine of half its offset
  size_t next_ = 0;                   // steps that the gradient has not been led back through

  HYPERLAX_INLINE void add_step(const Lane<T>& lane, int product, int place) {
    const int axis = lane.axis[place], feature = lane.feature[place];
    if (feature >= 0) {
      const T scale = lane.scale[place] < 0 ? T(1) : lane.params[lane.scale[place]];
      steps_.push_back({product, axis, place, 1, feature, lane.offset(place), scale, {}});
      return;
    }
    if (lane.bias[place] < 0 && lane.constant[place] == 0) return;  // padding
    if (steps_.empty() || steps_.back().axis != kFixed || steps_.back().product != product)
      steps_.push_back({product, kFixed, place, 0, -1, 0, 0, {1, 0, 0, 0, {}}});
    Step& step = steps_.back();
    step.count = place - step.place + 1;
    const Fixed q = step.fixed;
    const T c = fixed_c_[place], s = fixed_s_[place];
    step.fixed = after(c, s, axis, q);
  }

  // Fills in cosines and sines of all offsets.
  HYPERLAX_INLINE void turn_fixed(const Lane<T>& lane) {
    const int total = lane.num_layers * lane.max_qubits * lane.max_rotations;
    fixed_c_.resize(total);
    fixed_s_.resize(total);
    for (int first = 0; first < total; first += kSamples) {
      const int count = total - first < kSamples ? total - first : kSamples;
      Vec half = {};
      for (int i = 0; i < count; ++i) half[i] = T(0.5) * lane.offset(first + i);
      Turn turn;
      sine_cosine(half, turn.s, turn.c);
      if (any_is_far<T>(half * half)) turn_far(half, turn);
      store<T>(&fixed_c_[first], count, turn.c);
      store<T>(&fixed_s_[first], count, turn.s);
    }
  }

  // Computes anew the samples whose angles are too large for sine_cosine, and no others.
  static HYPERLAX_INLINE void turn_far(Vec half, Turn& turn) {
    for (int j = 0; j < kSamples; ++j)
      if (is_far<T>(half[j] * half[j])) turn.s[j] = std::sin(half[j]), turn.c[j] = std::cos(half[j]);
  }

  static HYPERLAX_INLINE void set_matrix(Fixed& q) {
    const T xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z, xy = q.x * q.y, xz = q.x * q.z, yz = q.y * q.z;
    const T ax = q.a * q.x, ay = q.a * q.y, az = q.a * q.z;
    const T matrix[9] = {1 - 2 * (yy + zz), 2 * (xy + az), 2 * (xz - ay), 2 * (xy - az),    1 - 2 * (xx + zz),
                         2 * (yz + ax),     2 * (xz + ay), 2 * (yz - ax), 1 - 2 * (xx + yy)};
    std::memcpy(q.matrix, matrix, sizeof matrix);
  }

  // Returns a rotation about an axis after q.
  template <typename Real, typename Any>
  static HYPERLAX_INLINE Any after(const Real& c, const Real& s, int axis, const Any& q) {
    if (axis == 0) return {c * q.a - s * q.x, c * q.x + s * q.a, c * q.y - s * q.z, c * q.z + s * q.y};
    if (axis == 1) return {c * q.a - s * q.y, c * q.x + s * q.z, c * q.y + s * q.a, c * q.z - s * q.x};
    return {c * q.a - s * q.z, c * q.x - s * q.y, c * q.y + s * q.x, c * q.z + s * q.a};
  }

  // Returns p after q.
  static HYPERLAX_INLINE Quaternion after(const Fixed& p, const Quaternion& q) {
    return {p.a * q.a - p.x * q.x - p.y * q.y - p.z * q.z, p.a * q.x + p.x * q.a + p.y * q.z - p.z * q.y,
            p.a * q.y + p.y * q.a + p.z * q.x - p.x * q.z, p.a * q.z + p.z * q.a + p.x * q.y - p.y * q.x};
  }

  // Fills in cosines and sines of the rotations that inputs change.
  HYPERLAX_INLINE void turn_all() {
    Vec largest = {};
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (steps_[i].axis == kFixed) continue;
      Vec half = half_angle(steps_[i]), square = half * half;
      sine_cosine(half, turns_[i].s, turns_[i].c);
      largest = largest > square ? largest : square;
    }
    if (!__builtin_expect(any_is_far<T>(largest), false)) return;
    for (size_t i = 0; i < steps_.size(); ++i)
      if (steps_[i].axis != kFixed) turn_far(half_angle(steps_[i]), turns_[i]);
  }

  HYPERLAX_INLINE Vec half_angle(const Step& step) const {
    return T(0.5) * step.offset + T(0.5) * step.scale * inputs_[step.feature].value;
  }

  // Multiplies the rotations of each layer and qubit.
  HYPERLAX_INLINE void multiply() {
    size_t i = 0;
    for (size_t at = 0; at < products_.size(); ++at) {
      Quaternion q = {Vec{} + T(1), Vec{}, Vec{}, Vec{}};
      for (; i < steps_.size() && steps_[i].product == int(at); ++i) {
        const Step& step = steps_[i];
        q = step.axis == kFixed ? after(step.fixed, q) : after(turns_[i].c, turns_[i].s, step.axis, q);
      }
      // Rounding leaves the norm, of which it takes away what would add up over a circuit.
      Vec unit = T(1.5) - T(0.5) * (q.a * q.a + q.x * q.x + q.y * q.y + q.z * q.z);
      products_[at] = {unit * q.a, unit * q.x, unit * q.y, unit * q.z};
    }
  }

  // Gives a step its share of the gradient, and leads t back through it.
  HYPERLAX_INLINE void lead_back(size_t i, Slopes& t) {
    const Step& step = steps_[i];
    Sums& sums = sums_[i];
    if (step.axis == kFixed) {
      sums.v[0] += t.x, sums.v[1] += t.y, sums.v[2] += t.z;
      const T* m = step.fixed.matrix;
      t = {m[0] * t.x + m[1] * t.y + m[2] * t.z, m[3] * t.x + m[4] * t.y + m[5] * t.z,
           m[6] * t.x + m[7] * t.y + m[8] * t.z};
      return;
    }
    const Turn turn = turns_[i];
    const Vec c = T(1) - T(2) * turn.s * turn.s, s = T(2) * turn.c * turn.s;
    Vec slope;  // zero for samples that are not there: their weights are
    if (step.axis == 0) {
      slope = t.x;
      t = {t.x, c * t.y + s * t.z, c * t.z - s * t.y};
    } else if (step.axis == 1) {
      slope = t.y;
      t = {c * t.x - s * t.z, t.y, c * t.z + s * t.x};
    } else {
      slope = t.z;
      t = {c * t.x + s * t.y, c * t.y - s * t.x, t.z};
    }
    Input& input = inputs_[step.feature];
    sums.v[0] += slope;
    sums.v[1] += slope * input.value;
    input.slope += step.scale * slope;
  }
};

}  // namespace hyperlax
