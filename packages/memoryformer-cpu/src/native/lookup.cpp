// The C interface: checks nothing that Python checked, chooses the kernels, splits the work over threads.
#include "interface.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "threads.h"
#include "x86.h"

#if defined(MEMORYFORMER_X86)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

// The numbers a thread hashes before it looks rows up: codes and weights of a batch stay in the cache.
constexpr int64_t BATCH = int64_t(1) << 20;
// Below this many bytes of rows, waking a thread costs more than it brings.
constexpr int64_t WORTH_A_THREAD = 128 << 10;

enum InstructionSet : int { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

// The best that the processor has and the operating system keeps the registers of.
InstructionSet best() {
#if defined(MEMORYFORMER_X86)
    constexpr unsigned FMA = 1u << 12, OSXSAVE = 1u << 27, F16C = 1u << 29;       // leaf 1, ecx
    constexpr unsigned OF_AVX2 = 1u << 5;                                         // leaf 7, ebx
    constexpr unsigned OF_AVX512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;     // F, DQ, BW, VL
    constexpr unsigned YMM = 6, ZMM = 0xe6;                                       // register 0 of xgetbv
    unsigned a, b, c, d, saved;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (FMA | OSXSAVE | F16C)) != (FMA | OSXSAVE | F16C)) return PORTABLE;
    __asm__("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
    if ((saved & YMM) != YMM || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & OF_AVX2)) return PORTABLE;
    return (saved & ZMM) == ZMM && (b & OF_AVX512) == OF_AVX512 ? AVX512 : AVX2;
#else
    return PORTABLE;
#endif
}

std::atomic<int> in_use{PORTABLE};

const Kernels& kernels_for(const Problem& p) {
    if (p.z_dtype == FLOAT64) return portable_double;
#if defined(MEMORYFORMER_X86)
    if (in_use == AVX512) return avx512_kernels;
    if (in_use == AVX2) return avx2_kernels;
#endif
    return portable_float;
}

int64_t bytes_of(int64_t dtype) {
    switch (dtype) {
        case INT8: return 1;
        case BFLOAT16:
        case FLOAT16: return 2;
        case FLOAT64: return 8;
        default: return 4;
    }
}

int64_t least(int64_t a, int64_t b) { return std::min(a, b); }

// The size of each of `parts` equal parts, a multiple of `unit`; the last may be smaller.
int64_t part_of(int64_t count, int64_t parts, int64_t unit) {
    return std::max<int64_t>(1, ((count + parts - 1) / parts + unit - 1) / unit) * unit;
}

// The codes and weights of a batch of tokens. What the caller wants is written where it wants it.
template <class Real>
struct Hashed {
    std::vector<int32_t> codes_kept;
    std::vector<Real> weights_kept;

    const int32_t* codes;
    const Real* weights;

    void hash(const Kernels& kernels, const Problem& p, int64_t n0, int64_t n1) {
        const size_t count = size_t((n1 - n0) * p.chunks);
        if (!p.codes && codes_kept.size() < count) codes_kept.resize(count);
        if ((!p.weights || p.scales) && weights_kept.size() < count) weights_kept.resize(count);
        int32_t* c = p.codes ? p.codes + n0 * p.chunks : codes_kept.data();
        Real* w = p.weights ? static_cast<Real*>(p.weights) + n0 * p.chunks : weights_kept.data();
        kernels.hash(p, n0, n1, c, w);
        codes = c;
        weights = w;
        if (p.scales) fold_scales(p, n1 - n0);
    }

    // w * scale of the row: an int8 table costs one product a row.
    void fold_scales(const Problem& p, int64_t tokens) {
        const int32_t* c = codes;
        const Real* w = weights;
        Real* out = weights_kept.data();
        for (int64_t n = 0; n < tokens; ++n)
            for (int64_t k = 0; k < p.chunks; ++k, ++c, ++w, ++out)
                *out = *w * p.scales[k * p.scale_table_stride + *c * p.scale_row_stride];
        weights = weights_kept.data();
    }
};

template <class Real>
void forward(const Problem& p) {
    const Kernels& kernels = kernels_for(p);
    static thread_local Hashed<Real> mine;
    const int64_t work = p.tokens * p.chunks * p.width * bytes_of(p.table_dtype);
    const int threads = int(std::max<int64_t>(1, least(p.threads, work / WORTH_A_THREAD)));
    if (threads > 1 && p.tokens < 4 * threads) {
        // Too few tokens to share out evenly: each thread takes some columns of all of them.
        mine.hash(kernels, p, 0, p.tokens);
        const int64_t part = part_of(p.width, threads, 64);
        const Hashed<Real>& hashed = mine;  // the threads have their own `mine`
        parallel(threads, (p.width + part - 1) / part, [&](int64_t i) {
            kernels.gather(p, 0, p.tokens, i * part, least(p.width, (i + 1) * part), hashed.codes, hashed.weights);
        });
        return;
    }
    const int64_t part = part_of(p.tokens, threads, 1), batch = std::max<int64_t>(1, BATCH / p.chunks);
    parallel(threads, (p.tokens + part - 1) / part, [&](int64_t i) {
        const int64_t end = least(p.tokens, (i + 1) * part);
        for (int64_t n = i * part; n < end; n += batch) {
            const int64_t n1 = least(end, n + batch);
            mine.hash(kernels, p, n, n1);
            kernels.gather(p, n, n1, 0, p.width, mine.codes, mine.weights);
        }
    });
}

// Memory comes in pages of 4 KiB. When large gradients are written for the first time, the faults of their pages take
// longer than the gradients; and each row that is looked up needs its page found first. Linux gives pages of 2 MiB
// where it is asked to, for new memory, and with `now` for what is there already. Returns 0 where it does.
int ask_for_huge_pages(void* begin, int64_t bytes, bool now) {
#if defined(__linux__)
    constexpr uintptr_t PAGE = uintptr_t(2) << 20;
    constexpr int COLLAPSE = 25;  // MADV_COLLAPSE, which older headers lack; Linux 6.1
    const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + PAGE - 1) / PAGE * PAGE;
    const uintptr_t last = (reinterpret_cast<uintptr_t>(begin) + uintptr_t(bytes)) / PAGE * PAGE;
    if (last <= first) return -1;
    const int refused = madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
    return refused || !now ? refused : madvise(reinterpret_cast<void*>(first), last - first, COLLAPSE);
#else
    (void)begin, (void)bytes, (void)now;
    return -1;
#endif
}

int backward(const Problem& p) {
    const Kernels& kernels = kernels_for(p);
    const int threads = int(p.threads);
    if (p.grad_tables)
        ask_for_huge_pages(p.grad_tables, (p.chunks << p.tau) * p.width * bytes_of(p.table_dtype), false);
    if (p.grad_tables || p.q) {
        // Tables differ in how evenly their rows are hit, so a thread that is done takes more.
        const int64_t part = part_of(p.chunks, 8 * threads, 1);
        std::atomic<bool> valid{true};
        parallel(threads, (p.chunks + part - 1) / part, [&](int64_t i) {
            if (!kernels.table_grad(p, i * part, least(p.chunks, (i + 1) * part))) valid = false;
        });
        if (!valid) return BAD_CODE;
    }
    if (p.grad_z) {
        const int64_t part = part_of(p.tokens, threads, 1);
        parallel(threads, (p.tokens + part - 1) / part,
                 [&](int64_t i) { kernels.input_grad(p, i * part, least(p.tokens, (i + 1) * part)); });
    }
    if (p.grad_bias) {
        const int64_t part = part_of(p.width, threads, 64);
        parallel(threads, (p.width + part - 1) / part,
                 [&](int64_t i) { kernels.bias_grad(p, i * part, least(p.width, (i + 1) * part)); });
    }
    return DONE;
}

}  // namespace

EXPORT int memoryformer_best_instruction_set() { return best(); }

EXPORT int memoryformer_instruction_set() { return in_use; }

// At most memoryformer_best_instruction_set().
EXPORT void memoryformer_use_instruction_set(int wanted) { in_use = wanted; }

EXPORT void memoryformer_set_parallel_region(ParallelRegion region) { set_parallel_region(region); }

EXPORT int memoryformer_huge_pages(void* begin, int64_t bytes) { return ask_for_huge_pages(begin, bytes, true); }

EXPORT int memoryformer_forward(const Problem* p) {
    try {
        if (p->z_dtype == FLOAT64)
            forward<double>(*p);
        else
            forward<float>(*p);
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
    return DONE;
}

EXPORT int memoryformer_backward(const Problem* p) {
    try {
        return backward(*p);
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}
