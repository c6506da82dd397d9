// Parts of a piece of work on several threads.
#pragma once

#include <cstdint>

// The entry of libgomp's parallel region, of the copy that torch itself loaded (LLVM's libomp has it too). Using
// torch's own threads means no second set of threads that spin beside them, and no link against any OpenMP library.
using ParallelRegion = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

void set_parallel_region(ParallelRegion region);

// Calls part(data, i) once for each i in 0..parts, on up to `threads` threads, and returns when all are done.
// Throws std::bad_alloc where one of them did.
void run_parts(int threads, int64_t parts, void (*part)(void* data, int64_t index), void* data);

template <class F>
void parallel(int threads, int64_t parts, F&& f) {
    run_parts(threads, parts, [](void* data, int64_t index) { (*static_cast<F*>(data))(index); }, &f);
}
