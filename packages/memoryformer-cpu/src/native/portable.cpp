// The kernels in plain C++: for every processor, and for float64. Compilers turn the loops into SSE2 or NEON.
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "lookup.h"
#include "prefetch.h"

namespace {

template <class Real>
struct Plain {
    static constexpr int width = 8, registers = 16;
    struct type {
        Real v[width];
    };

    // What the processor rounds once where it can: the same for whole vectors and for the last few columns.
    static Real fma(Real a, Real b, Real c) {
#if defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)
        return std::fma(a, b, c);
#else
        return a * b + c;
#endif
    }

    static type set(Real x) {
        type r;
        for (int i = 0; i < width; ++i) r.v[i] = x;
        return r;
    }
    template <class T>
    static type load(const T* p) {
        type r;
        for (int i = 0; i < width; ++i) r.v[i] = static_cast<Real>(widen(p[i]));
        return r;
    }
    template <class T>
    static type load_part(const T* p, int count) {
        type r = set(0);
        for (int i = 0; i < count; ++i) r.v[i] = static_cast<Real>(widen(p[i]));
        return r;
    }
    template <class T>
    static void store(T* p, type x) {
        for (int i = 0; i < width; ++i) narrow(x.v[i], p + i);
    }
    template <class T>
    static void store_part(T* p, type x, int count) {
        for (int i = 0; i < count; ++i) narrow(x.v[i], p + i);
    }
    static void store_codes(int32_t* p, type x, int count) {
        for (int i = 0; i < count; ++i) p[i] = static_cast<int32_t>(x.v[i]);
    }
    static type add(type a, type b) {
        for (int i = 0; i < width; ++i) a.v[i] += b.v[i];
        return a;
    }
    static type mul(type a, type b) {
        for (int i = 0; i < width; ++i) a.v[i] *= b.v[i];
        return a;
    }
    static type div(type a, type b) {
        for (int i = 0; i < width; ++i) a.v[i] /= b.v[i];
        return a;
    }
    static type fma(type a, type b, type c) {
        for (int i = 0; i < width; ++i) c.v[i] = fma(a.v[i], b.v[i], c.v[i]);
        return c;
    }
    static type abs(type a) {
        for (int i = 0; i < width; ++i) a.v[i] = std::fabs(a.v[i]);
        return a;
    }
    static type bit(type a) {  // 1 where a >= 0, else 0
        for (int i = 0; i < width; ++i) a.v[i] = a.v[i] >= 0 ? Real(1) : Real(0);
        return a;
    }
    static type sign(type a) {
        for (int i = 0; i < width; ++i) a.v[i] = Real(a.v[i] > 0) - Real(a.v[i] < 0);
        return a;
    }
    static type exp_negative(type a) {  // of a <= 0
        for (int i = 0; i < width; ++i) a.v[i] = std::exp(a.v[i]);
        return a;
    }
    static Real total(type a) {
        const Real* v = a.v;
        return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
    }
};

#define TARGET

namespace single {
using real = float;
using V = Plain<float>;
#include "kernels.inc"
}  // namespace single

namespace twofold {
using real = double;
using V = Plain<double>;
#include "kernels.inc"
}  // namespace twofold

}  // namespace

const Kernels portable_float = {single::hash, single::gather, single::table_grad, single::input_grad,
                                single::bias_grad};
const Kernels portable_double = {twofold::hash, twofold::gather, twofold::table_grad, twofold::input_grad,
                                 twofold::bias_grad};
