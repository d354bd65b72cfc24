/* Around a .cu file, for g++: what CUDA gives a kernel, and the way from cuLaunchKernel's arguments to it.
 * Generated lines behind the include say NULL_KERNEL(name) for every kernel (libraries.py). */
#pragma once
#include <stddef.h>
#include <utility>
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __restrict__
#define __forceinline__ inline
#define __launch_bounds__(...)
static inline unsigned atomicAdd(unsigned* place, unsigned more) { *place += more; return *place - more; }
struct Dim { unsigned int x, y, z; };
static Dim gridDim, blockIdx, blockDim, threadIdx;

struct Parameter { int bytes, pointer; };
template <typename T> struct Kind { static constexpr int value = 0; };
template <typename T> struct Kind<T*> { static constexpr int value = 2; };
template <typename T> struct Kind<const T*> { static constexpr int value = 1; };

template <typename... Values, size_t... at>
static void every_thread(void (*kernel)(Values...), const unsigned* sizes, void** values, std::index_sequence<at...>) {
  gridDim = {sizes[0], sizes[1], sizes[2]};
  blockDim = {sizes[3], sizes[4], sizes[5]};
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
  for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
  for (threadIdx.z = 0; threadIdx.z < blockDim.z; threadIdx.z++)
  for (threadIdx.y = 0; threadIdx.y < blockDim.y; threadIdx.y++)
  for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) kernel(*(Values*)values[at]...);
}
template <typename... Values>
static void launch(void (*kernel)(Values...), const unsigned* sizes, void** values) {
  every_thread(kernel, sizes, values, std::index_sequence_for<Values...>());
}
template <typename F> struct Parameters;
template <typename... Values> struct Parameters<void(Values...)> {
  static constexpr Parameter list[] = {{sizeof(Values), Kind<Values>::value}..., {0, 0}};
};

#define NULL_KERNEL(name)                                                                        \
  extern "C" void null_launch_##name(const unsigned* sizes, void** values) { launch(name, sizes, values); } \
  extern "C" const Parameter* const null_parameters_##name = Parameters<decltype(name)>::list;
