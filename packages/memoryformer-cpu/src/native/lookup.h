// What the entry points and the kernels of each instruction set share.
#pragma once

#include <cstdint>

#include "numbers.h"

// A forward or backward problem, as Python packs it: N tokens of K chunks of tau numbers, tables [K, 2^tau, h].
// `real` below is float, or double where z is float64. Pointers that a call does not use are null.
struct Problem {
    int64_t threads;
    int64_t tokens, chunks, width, tau;  // N, K, h, tau
    int64_t z_dtype, table_dtype;
    int64_t scaled;  // the score: w = p * sum|z|/t instead of w = p
    int64_t table_stride, row_stride, scale_table_stride, scale_row_stride;  // in numbers
    double temperature;
    const void* z;        // [N, K, tau]
    const void* tables;   // rows of h numbers side by side
    const void* bias;     // real [h], or null
    const float* scales;  // of int8 rows, or null
    void* y;              // [N, h] of z's type
    int32_t* codes;       // [N, K]: forward writes codes and weights where they are not null, backward reads them
    void* weights;        // real [N, K]
    const void* grad_y;   // real [N, h]
    void* q;              // real [N, K], room for <grad_y, row>, the gradient of the weight; needed for grad_z
    void* grad_z;         // [N, K, tau] of z's type
    void* grad_tables;    // [K, 2^tau, h] of the tables' type, contiguous
    void* grad_bias;      // real [h]
};

static_assert(sizeof(void*) == 8 && sizeof(Problem) == 25 * 8, "Python packs 25 words of 8 bytes");

// The kernels of one instruction set. Ranges are half-open: tokens n, columns c, tables k.
struct Kernels {
    // Codes int32 and weights real of tokens n0..n1, written to rows 0.. of codes and weights.
    void (*hash)(const Problem&, int64_t n0, int64_t n1, int32_t* codes, void* weights);
    // Columns c0..c1 of y for tokens n0..n1, whose codes and weights (with the scale in them) are rows 0.. .
    void (*gather)(const Problem&, int64_t n0, int64_t n1, int64_t c0, int64_t c1, const int32_t* codes,
                   const void* weights);
    // Gradients of tables k0..k1 and q of their chunks; false where a code is out of range.
    bool (*table_grad)(const Problem&, int64_t k0, int64_t k1);
    void (*input_grad)(const Problem&, int64_t n0, int64_t n1);
    void (*bias_grad)(const Problem&, int64_t c0, int64_t c1);
};

extern const Kernels portable_float, portable_double, avx2_kernels, avx512_kernels;
