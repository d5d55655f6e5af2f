// The part of cuBLAS that the program calls: products of matrices in float or bf16. All arithmetic is in float: TF32 is not rounded as on a GPU.

#include "values.h"

using namespace standin;

struct Blas {
    CUstream stream = nullptr;
};
enum { BLAS_OK = 0, BLAS_NOT_INITIALIZED = 1, BLAS_INVALID_VALUE = 7, BLAS_EXECUTION_FAILED = 13 };

// Column by column: c [m, n] = alpha · a [m, k] · b [k, n] + beta · c, a and b transposed or not.
static int gemm(const char *call, Blas *handle, Type type, int turn_a, int turn_b, int m, int n, int k, float alpha, const void *a, int lda,
                const void *b, int ldb, float beta, void *c, int ldc) {
    if (m < 0 || n < 0 || k < 0 || lda < (turn_a ? k : m) || ldb < (turn_b ? n : k) || ldc < m) {
        say("%s: sizes %d %d %d with columns of %d %d %d", call, m, n, k, lda, ldb, ldc);
        return BLAS_INVALID_VALUE;
    }
    if (m == 0 || n == 0) return BLAS_OK;
    if (k == 0 || ldc != m) die("%s: empty products and columns apart are not implemented", call);
    size_t size_a = size_t(lda) * ((turn_a ? m : k) - 1) + (turn_a ? k : m);
    size_t size_b = size_t(ldb) * ((turn_b ? k : n) - 1) + (turn_b ? n : k);
    size_t size_c = size_t(m) * n;
    vector<Reach> reaches = {reads(a, size_a * width(type)), reads(b, size_b * width(type))};
    Reach result = writes(c, size_c * width(type));
    apart(call, result, reaches);
    reaches.push_back(result);
    auto run = [=] {
        vector<float> room_a, room_b, sums(size_c);
        // Row by row it is cᵀ = bᵀ · aᵀ.
        Matrix left{widened(type, b, size_b, room_b), size_t(turn_b ? 1 : ldb), size_t(turn_b ? ldb : 1)};
        Matrix right{widened(type, a, size_a, room_a), size_t(turn_a ? 1 : lda), size_t(turn_a ? lda : 1)};
        multiply(n, m, k, left, right, sums.data(), false);
        finish(type, c, sums, alpha, beta);
    };
    return enqueue(handle->stream, {call, reaches, run}) ? BLAS_EXECUTION_FAILED : BLAS_OK;
}

extern "C" {

int cublasCreate_v2(Blas **handle) {
    if (forbidden_in_capture(__func__)) return BLAS_NOT_INITIALIZED;
    *handle = new Blas;
    return BLAS_OK;
}

int cublasDestroy_v2(Blas *handle) {
    if (forbidden_in_capture(__func__)) return BLAS_NOT_INITIALIZED;
    delete handle;
    return BLAS_OK;
}

int cublasSetStream_v2(Blas *handle, CUstream stream) {
    handle->stream = stream;
    return BLAS_OK;
}

int cublasSgemm_v2(Blas *handle, int turn_a, int turn_b, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb,
                   const float *beta, float *c, int ldc) {
    return gemm(__func__, handle, Float32, turn_a, turn_b, m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);
}

int cublasGemmEx(Blas *handle, int turn_a, int turn_b, int m, int n, int k, const float *alpha, const void *a, int type_a, int lda, const void *b,
                 int type_b, int ldb, const float *beta, void *c, int type_c, int ldc, int compute, int) {
    const int REAL_32 = 0, BF16 = 14, COMPUTE_32 = 68, COMPUTE_32_PEDANTIC = 69, COMPUTE_32_TF32 = 77;
    bool types = type_a == type_b && type_b == type_c && (type_a == REAL_32 || type_a == BF16);
    if (!types || (compute != COMPUTE_32 && compute != COMPUTE_32_PEDANTIC && compute != COMPUTE_32_TF32))
        die("cublasGemmEx: types %d %d %d, compute type %d", type_a, type_b, type_c, compute);
    Type type = type_a == BF16 ? Bfloat16 : Float32;
    return gemm(__func__, handle, type, turn_a, turn_b, m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc);
}

}  // extern "C"
