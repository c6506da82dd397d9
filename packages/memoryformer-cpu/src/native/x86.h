// Whether the compiler can build one function for AVX2 and the next for AVX-512: GCC and clang on x86-64.
#pragma once

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define MEMORYFORMER_X86
#include <immintrin.h>
#endif

#include <cstring>
#include <type_traits>
#include <vector>

#include "lookup.h"
#include "prefetch.h"
