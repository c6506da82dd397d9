// What of DLPack 1.3 is needed to see a tensor of Python's as it lies in memory: https://dmlc.github.io/dlpack.
#pragma once

#include <cstdint>

struct DlTensor {
    enum Device : int32_t { CPU = 1 };
    enum Code : uint8_t { INTEGER = 0, FLOAT = 2, BFLOAT = 4 };

    void* data;
    int32_t device, device_number;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t* shape;
    int64_t* strides;  // in numbers; null where the tensor is contiguous
    uint64_t byte_offset;
};

// The functions that `torch.Tensor.__dlpack_c_exchange_api__` holds; `view` fills in a tensor that owns nothing, and
// returns other than 0, with a Python exception set, where it cannot.
struct DlExchange {
    uint32_t major, minor;
    const void* older;
    void *allocate, *share, *adopt;
    int (*view)(void* python_object, DlTensor* tensor);
    void* stream;
};
