// The kernels with AVX2, FMA and F16C: every function has the attribute, the rest of the library does not.
#include "x86.h"

#if defined(MEMORYFORMER_X86)

#define TARGET __attribute__((target("avx2,fma,f16c")))

namespace {

using real = float;

struct V {
    static constexpr int width = 8, registers = 16;
    using type = __m256;

    TARGET static type set(float x) { return _mm256_set1_ps(x); }

    TARGET static type load(const float* p) { return _mm256_loadu_ps(p); }
    TARGET static type load(const bf16* p) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
    }
    TARGET static type load(const f16* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    TARGET static type load(const int8_t* p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    }
    template <class T>
    TARGET static type load_part(const T* p, int count) {
        T whole[width] = {};
        std::memcpy(whole, p, size_t(count) * sizeof(T));
        return load(whole);
    }

    TARGET static void store(float* p, type x) { _mm256_storeu_ps(p, x); }
    TARGET static void store(bf16* p, type x) {
        const __m256i bits = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
        const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
        const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
    }
    TARGET static void store(f16* p, type x) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
    template <class T>
    TARGET static void store_part(T* p, type x, int count) {
        T whole[width];
        store(whole, x);
        std::memcpy(p, whole, size_t(count) * sizeof(T));
    }
    TARGET static void store_codes(int32_t* p, type x, int count) {
        int32_t whole[width];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(whole), _mm256_cvtps_epi32(x));
        std::memcpy(p, whole, size_t(count) * sizeof(int32_t));
    }

    TARGET static type add(type a, type b) { return _mm256_add_ps(a, b); }
    TARGET static type mul(type a, type b) { return _mm256_mul_ps(a, b); }
    TARGET static type div(type a, type b) { return _mm256_div_ps(a, b); }
    TARGET static type fma(type a, type b, type c) { return _mm256_fmadd_ps(a, b, c); }
    TARGET static type abs(type a) { return _mm256_andnot_ps(set(-0.0f), a); }
    TARGET static type bit(type a) { return _mm256_and_ps(_mm256_cmp_ps(a, set(0), _CMP_GE_OQ), set(1)); }
    TARGET static type sign(type a) {
        const type positive = _mm256_and_ps(_mm256_cmp_ps(a, set(0), _CMP_GT_OQ), set(1));
        return _mm256_or_ps(positive, _mm256_and_ps(_mm256_cmp_ps(a, set(0), _CMP_LT_OQ), set(-1)));
    }
    TARGET static type round(type a) {
        return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    TARGET static type larger(type a, type b) { return _mm256_max_ps(a, b); }  // b where one is NaN
    TARGET static type times_power_of_two(type a, type n) {  // for n > -127 and results that are normal numbers
        return _mm256_castsi256_ps(
            _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
    }
    TARGET static type exp_negative(type a);
    TARGET static float total(type a) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
};

#include "exp.inc"
#include "kernels.inc"

}  // namespace

const Kernels avx2_kernels = {hash, gather, table_grad, input_grad, bias_grad};

#endif
