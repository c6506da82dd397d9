// How the library meets Python: functions with a C interface, which return a Status.
#pragma once

#include "lookup.h"

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

enum Status : int { DONE = 0, NO_MEMORY = 1, BAD_CODE = 2, NOT_DIRECT = 3 };

EXPORT int memoryformer_forward(const Problem* p);
