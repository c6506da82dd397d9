// The kernels with AVX-512 (F, BW, DQ, VL): every function has the attribute, the rest of the library does not.
#include "x86.h"

#if defined(MEMORYFORMER_X86)

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))

namespace {

using real = float;

struct V {
    static constexpr int width = 16, registers = 32;
    using type = __m512;

    TARGET static __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }

    TARGET static type set(float x) { return _mm512_set1_ps(x); }

    TARGET static type load(const float* p) { return _mm512_loadu_ps(p); }
    TARGET static type load(const bf16* p) { return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
    TARGET static type load(const f16* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    TARGET static type load(const int8_t* p) {
        return widen_int8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    TARGET static type widen_bf16(__m256i x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
    TARGET static type widen_int8(__m128i x) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }

    TARGET static type load_part(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
    TARGET static type load_part(const bf16* p, int count) {
        return widen_bf16(_mm256_maskz_loadu_epi16(first(count), p));
    }
    TARGET static type load_part(const f16* p, int count) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
    }
    TARGET static type load_part(const int8_t* p, int count) {
        return widen_int8(_mm_maskz_loadu_epi8(first(count), p));
    }

    TARGET static __m256i narrow_bf16(type x) {
        const __m512i bits = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
        const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
        return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
    }
    TARGET static __m256i narrow_f16(type x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

    TARGET static void store(float* p, type x) { _mm512_storeu_ps(p, x); }
    TARGET static void store(bf16* p, type x) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_bf16(x));
    }
    TARGET static void store(f16* p, type x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow_f16(x)); }
    TARGET static void store_part(float* p, type x, int count) { _mm512_mask_storeu_ps(p, first(count), x); }
    TARGET static void store_part(bf16* p, type x, int count) {
        _mm256_mask_storeu_epi16(p, first(count), narrow_bf16(x));
    }
    TARGET static void store_part(f16* p, type x, int count) {
        _mm256_mask_storeu_epi16(p, first(count), narrow_f16(x));
    }
    TARGET static void store_codes(int32_t* p, type x, int count) {
        _mm512_mask_storeu_epi32(p, first(count), _mm512_cvtps_epi32(x));
    }

    TARGET static type add(type a, type b) { return _mm512_add_ps(a, b); }
    TARGET static type mul(type a, type b) { return _mm512_mul_ps(a, b); }
    TARGET static type div(type a, type b) { return _mm512_div_ps(a, b); }
    TARGET static type fma(type a, type b, type c) { return _mm512_fmadd_ps(a, b, c); }
    TARGET static type abs(type a) { return _mm512_abs_ps(a); }
    TARGET static type bit(type a) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, set(0), _CMP_GE_OQ), set(1));
    }
    TARGET static type sign(type a) {
        const type positive = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, set(0), _CMP_GT_OQ), set(1));
        return _mm512_mask_mov_ps(positive, _mm512_cmp_ps_mask(a, set(0), _CMP_LT_OQ), set(-1));
    }
    TARGET static type round(type a) {
        return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    TARGET static type larger(type a, type b) { return _mm512_max_ps(a, b); }  // b where one is NaN
    TARGET static type times_power_of_two(type a, type n) { return _mm512_scalef_ps(a, n); }
    TARGET static type exp_negative(type a);
    TARGET static float total(type a) { return _mm512_reduce_add_ps(a); }
};

#include "exp.inc"
#include "kernels.inc"

}  // namespace

const Kernels avx512_kernels = {hash, gather, table_grad, input_grad, bias_grad};

#endif
