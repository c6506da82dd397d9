#include "threads.h"

#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace {

std::atomic<ParallelRegion> parallel_region{nullptr};

struct Work {
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
    int64_t parts;
    void (*part)(void*, int64_t);
    void* data;
};

// Takes parts until none is left: right however many threads the region really gets. No exception may leave it.
void take(void* data) {
    Work& work = *static_cast<Work*>(data);
    try {
        for (int64_t i; (i = work.next.fetch_add(1)) < work.parts;) work.part(work.data, i);
    } catch (const std::bad_alloc&) {
        work.out_of_memory = true;
    }
}

void run(int threads, Work& work) {
    if (threads <= 1) return take(&work);
    if (const ParallelRegion region = parallel_region) return region(take, &work, unsigned(threads), 0);
    // No OpenMP of torch's that we can speak to (macOS, Windows): threads for this call alone.
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads; ++i) others.emplace_back(take, &work);
    } catch (const std::system_error&) {
        // The system gives no more threads; those that there are do all parts.
    }
    take(&work);
    for (std::thread& thread : others) thread.join();
}

}  // namespace

void set_parallel_region(ParallelRegion region) { parallel_region = region; }

void run_parts(int threads, int64_t parts, void (*part)(void*, int64_t), void* data) {
    Work work;
    work.parts = parts;
    work.part = part;
    work.data = data;
    run(threads > parts ? int(parts) : threads, work);
    if (work.out_of_memory) throw std::bad_alloc();
}
