// A look-up straight from Python's tensors: small ones in one call. All of its arguments are checked here, and what is
// out of the ordinary (or wrong) is left to the longer way through Python, which says what is wrong.
#include <cmath>
#include <new>
#include <vector>

#include "dlpack.h"
#include "interface.h"

namespace {

const DlExchange* exchange = nullptr;  // torch's
const void* none = nullptr;            // Python's None
void (*forget_error)() = nullptr;      // Python's PyErr_Clear

// The caller holds Python's lock meanwhile, so this is for rows of a millisecond or less.
constexpr int64_t MOST_BYTES = int64_t(8) << 20;

int dtype_of(const DlTensor& x) {
    if (x.lanes != 1) return -1;
    switch (x.code << 8 | x.bits) {
        case DlTensor::FLOAT << 8 | 32: return FLOAT32;
        case DlTensor::FLOAT << 8 | 16: return FLOAT16;
        case DlTensor::BFLOAT << 8 | 16: return BFLOAT16;
        case DlTensor::INTEGER << 8 | 8: return INT8;
        default: return -1;
    }
}

bool contiguous(const DlTensor& x) {
    int64_t stride = 1;
    for (int i = x.ndim - 1; i >= 0 && x.strides; --i) {
        if (x.shape[i] != 1 && x.strides[i] != stride) return false;
        stride *= x.shape[i];
    }
    return true;
}

// False where there is a tensor that cannot be seen, as one on the meta device.
bool see(void* python_object, DlTensor& tensor) {
    if (python_object == none || !exchange->view(python_object, &tensor)) return true;
    forget_error();
    return false;
}

template <class T>
T* data(const DlTensor& x) {
    return static_cast<T*>(static_cast<void*>(static_cast<char*>(x.data) + x.byte_offset));
}

// The shapes of all, in `p`; false where they are not those of one look-up. x has y's leading dimensions, and then
// either K·tau numbers or K, tau.
bool fit(const DlTensor& y, const DlTensor& x, const DlTensor& tables, Problem& p) {
    if (tables.ndim != 3 || y.ndim < 1 || x.ndim < y.ndim || x.ndim > y.ndim + 1) return false;
    p.chunks = tables.shape[0], p.width = tables.shape[2];
    for (p.tau = 1; p.tau < 16 && int64_t(1) << p.tau < tables.shape[1];) ++p.tau;
    const int leading = y.ndim - 1;
    p.tokens = 1;
    for (int i = 0; i < leading; ++i) {
        if (x.shape[i] != y.shape[i]) return false;
        p.tokens *= x.shape[i];
    }
    const int64_t* last = x.shape + leading;
    return p.chunks > 0 && int64_t(1) << p.tau == tables.shape[1] && y.shape[leading] == p.width &&
           (x.ndim == y.ndim ? last[0] == p.chunks * p.tau : last[0] == p.chunks && last[1] == p.tau);
}

// The bias in float32, where it is or in `kept`; false where it does not fit.
bool fit_bias(const DlTensor& bias, std::vector<float>& kept, Problem& p) {
    if (bias.device != DlTensor::CPU || bias.ndim != 1 || bias.shape[0] != p.width || !contiguous(bias)) return false;
    const auto widened = [&](const auto* numbers) {
        kept.resize(size_t(p.width));
        for (int64_t c = 0; c < p.width; ++c) kept[size_t(c)] = widen(numbers[c]);
        p.bias = kept.data();
    };
    switch (dtype_of(bias)) {
        case FLOAT32: p.bias = data<float>(bias); return true;
        case BFLOAT16: widened(data<bf16>(bias)); return true;
        case FLOAT16: widened(data<f16>(bias)); return true;
        default: return false;
    }
}

// [K, 2^tau], or [K, 1] for one scale a table.
bool fit_scales(const DlTensor& scales, const DlTensor& tables, Problem& p) {
    if (scales.device != DlTensor::CPU || dtype_of(scales) != FLOAT32 || scales.ndim != 2 || !contiguous(scales) ||
        scales.shape[0] != p.chunks || (scales.shape[1] != tables.shape[1] && scales.shape[1] != 1))
        return false;
    p.scales = data<float>(scales);
    p.scale_table_stride = scales.shape[1];
    p.scale_row_stride = scales.shape[1] == 1 ? 0 : 1;
    return true;
}

}  // namespace

// What torch.Tensor.__dlpack_c_exchange_api__ holds, None and PyErr_Clear; false where that is another DLPack.
EXPORT bool memoryformer_set_exchange(const DlExchange* functions, const void* python_none, void (*clear)()) {
    if (functions->major != 1 || !functions->view) return false;
    exchange = functions;
    none = python_none;
    forget_error = clear;
    return true;
}

// y is written. `scaled` is 1 or 0 for the score, -1 for one that there is not.
EXPORT int memoryformer_direct(void* y, void* x, void* tables, void* bias, void* scales, int scaled, double temperature, int threads) {
    static thread_local std::vector<float> wide_bias;
    DlTensor out, in, rows, b, s;
    if (!see(y, out) || !see(x, in) || !see(tables, rows) || !see(bias, b) || !see(scales, s)) return NOT_DIRECT;
    Problem p{};
    p.z_dtype = dtype_of(in), p.table_dtype = dtype_of(rows);
    if (in.device != DlTensor::CPU || rows.device != DlTensor::CPU || p.z_dtype < 0 || p.z_dtype == INT8 ||
        p.table_dtype < 0 || scaled < 0 || !(temperature > 0 && temperature < HUGE_VAL) || !fit(out, in, rows, p) ||
        !contiguous(in) || !rows.strides || rows.strides[2] != 1 || (p.table_dtype == INT8) != (scales != none) ||
        p.tokens * p.chunks * p.width * rows.bits / 8 > MOST_BYTES || (scales != none && !fit_scales(s, rows, p)))
        return NOT_DIRECT;
    try {
        if (bias != none && !fit_bias(b, wide_bias, p)) return NOT_DIRECT;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
    p.threads = threads, p.scaled = scaled, p.temperature = temperature;
    p.table_stride = rows.strides[0], p.row_stride = rows.strides[1];
    p.z = data<void>(in), p.tables = data<void>(rows), p.y = data<void>(out);
    return memoryformer_forward(&p);
}
