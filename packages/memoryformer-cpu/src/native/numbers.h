// The number formats of tables and activations, and their scalar conversions.
#pragma once

#include <cstdint>
#include <cstring>

enum Dtype : int { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2, INT8 = 3, FLOAT64 = 4 };

struct bf16 {
    uint16_t bits;
};

struct f16 {
    uint16_t bits;
};

static inline float from_bits(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t to_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float widen(float x) { return x; }
static inline double widen(double x) { return x; }
static inline float widen(int8_t x) { return static_cast<float>(x); }
static inline float widen(bf16 x) { return from_bits(static_cast<uint32_t>(x.bits) << 16); }

static inline float widen(f16 x) {
    const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
    if (magnitude >= 0x7c00u)  // infinity and NaN
        return from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    // Moved in place, the exponent is 112 too small; the product is exact, subnormal numbers included.
    return from_bits(sign | to_bits(from_bits(magnitude << 13) * 0x1p112f));
}

static inline void narrow(float x, float* out) { *out = x; }
static inline void narrow(double x, double* out) { *out = x; }
static inline void narrow(double x, float* out) { *out = static_cast<float>(x); }

static inline void narrow(float x, bf16* out) {
    const uint32_t bits = to_bits(x);
    if (x != x)
        out->bits = static_cast<uint16_t>(bits >> 16 | 0x40u);
    else  // to nearest, ties to even
        out->bits = static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline void narrow(float x, f16* out) {
    const uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u)  // NaN
        half = 0x7e00u;
    else if (magnitude >= 0x477ff000u)  // 65520 and more round to infinity
        half = 0x7c00u;
    else if (magnitude < 0x38800000u)  // subnormal: adding 0.5 rounds at the last place of 2^-24
        half = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
    else
        half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
    out->bits = static_cast<uint16_t>(sign | half);
}

static inline void narrow(double x, bf16* out) { narrow(static_cast<float>(x), out); }
static inline void narrow(double x, f16* out) { narrow(static_cast<float>(x), out); }
