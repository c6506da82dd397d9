// Asks for the line of memory at an address, where the compiler has a word for it.
#pragma once

static inline void prefetch(const void* address) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}
