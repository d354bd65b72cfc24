/* libcudart.so.13 of the null GPU, on its driver. ONNX Runtime's own kernels do nothing here; memory, copies,
 * streams, events and captures are the driver's, with its rules and counts. */
#define _GNU_SOURCE
#include "null.h"
#include <stdlib.h>
#include <string.h>

#define DRIVER(name) int name();
DRIVER(cuDevicePrimaryCtxRetain) DRIVER(cuCtxSetCurrent) DRIVER(cuCtxGetCurrent) DRIVER(cuDeviceGetAttribute)
DRIVER(cuMemFreeHost) DRIVER(cuStreamSynchronize) DRIVER(cuStreamWaitEvent) DRIVER(cuEventElapsedTime_v2)
DRIVER(cuEventRecord) DRIVER(cuEventSynchronize) DRIVER(cuCtxSynchronize) DRIVER(cuEventDestroy_v2)
DRIVER(cuStreamDestroy_v2) DRIVER(cuStreamBeginCapture_v2) DRIVER(cuStreamEndCapture) DRIVER(cuStreamIsCapturing)
DRIVER(cuGraphLaunch) DRIVER(cuGraphDestroy) DRIVER(cuGraphExecDestroy) DRIVER(cuMemGetInfo_v2)
DRIVER(cuPointerGetAttribute) DRIVER(cuEventCreate) DRIVER(cuStreamCreate)
int cuMemAlloc_v2(void **, size_t);
int cuMemFree_v2(void *);
int cuMemHostAlloc(void **, size_t, unsigned);
int cuMemcpyHtoDAsync_v2(void *, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, const void *, size_t, void *);
int cuMemcpyDtoDAsync_v2(void *, const void *, size_t, void *);
int cuMemsetD8Async(void *, unsigned char, size_t, void *);
int cuGraphInstantiateWithFlags(void **, void *, unsigned long long);

static _Thread_local int ordinal;
static _Thread_local int last;
static int noted(int status) { return status ? (last = status) : OK; }

/* The runtime takes the primary context of the thread's device by itself. */
static void enter(void) {
  static void *contexts[DEVICES];
  void *current = NULL;
  cuCtxGetCurrent(&current);
  if (current) return;
  if (!contexts[ordinal]) cuDevicePrimaryCtxRetain(&contexts[ordinal], ordinal);
  cuCtxSetCurrent(contexts[ordinal]);
}
#define IN(call) (enter(), noted(call))

int cudaGetDeviceCount(int *count) { return *count = DEVICES, OK; }
int cudaGetDevice(int *device) { return *device = ordinal, OK; }
int cudaSetDevice(int device) {
  if (device < 0 || device >= DEVICES) return noted(101);
  if (device != ordinal) cuCtxSetCurrent(NULL);
  ordinal = device;
  enter();
  return OK;
}
int cudaRuntimeGetVersion(int *version) { return *version = 13000, OK; }
int cudaDriverGetVersion(int *version) { return *version = 13000, OK; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  return cuDeviceGetAttribute(value, attribute, device);
}
int cudaGetDeviceProperties(char *properties, int device) { /* offsets of CUDA 13's struct cudaDeviceProp */
  memset(properties, 0, 1008);
  strcpy(properties, "Null GPU");
  *(size_t *)(properties + 288) = (size_t)16 << 30;   /* totalGlobalMem */
  *(size_t *)(properties + 296) = 49152;              /* sharedMemPerBlock */
  *(int *)(properties + 304) = 65536;                 /* regsPerBlock */
  *(int *)(properties + 308) = 32;                    /* warpSize */
  *(int *)(properties + 320) = 1024;                  /* maxThreadsPerBlock */
  for (int axis = 0; axis < 3; axis++) *(int *)(properties + 336 + 4 * axis) = axis ? 65535 : 2147483647;
  cuDeviceGetAttribute((int *)(properties + 360), 75, device); /* major */
  cuDeviceGetAttribute((int *)(properties + 364), 76, device); /* minor */
  *(int *)(properties + 384) = 100;                   /* multiProcessorCount */
  *(int *)(properties + 596) = 1 << 22;               /* l2CacheSize */
  *(int *)(properties + 604) = 1536;                  /* maxThreadsPerMultiProcessor */
  *(size_t *)(properties + 672) = 101376;             /* sharedMemPerBlockOptin */
  return OK;
}
int cudaDeviceSynchronize(void) { return IN(cuCtxSynchronize()); }
int cudaGetLastError(void) { int error = last; last = OK; return error; }
int cudaPeekAtLastError(void) { return last; }
const char *cudaGetErrorString(int error) { return error ? "error of the null GPU" : "no error"; }
const char *cudaGetErrorName(int error) { return error ? "cudaError" : "cudaSuccess"; }

int cudaMalloc(void **pointer, size_t bytes) { return IN(cuMemAlloc_v2(pointer, bytes)); }
int cudaMallocFromPoolAsync(void **pointer, size_t bytes, void *pool, void *stream) {
  return IN(cuMemAlloc_v2(pointer, bytes));
}
int cudaFree(void *pointer) { return IN(cuMemFree_v2(pointer)); }
int cudaFreeAsync(void *pointer, void *stream) { return IN(cuMemFree_v2(pointer)); }
int cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) { return IN(cuMemHostAlloc(pointer, bytes, flags)); }
int cudaMallocHost(void **pointer, size_t bytes) { return IN(cuMemHostAlloc(pointer, bytes, 0)); }
int cudaFreeHost(void *pointer) { return IN(cuMemFreeHost(pointer)); }
int cudaMemGetInfo(size_t *unused, size_t *total) { return cuMemGetInfo_v2(unused, total); }
int cudaPointerGetAttributes(int *attributes, void *pointer) { /* type, device, devicePointer, hostPointer */
  unsigned type = 0;
  int device = 0;
  enter();
  cuPointerGetAttribute(&type, 2, pointer);
  if (type) cuPointerGetAttribute(&device, 9, pointer);
  attributes[0] = type, attributes[1] = device;
  ((void **)attributes)[1] = ((void **)attributes)[2] = pointer;
  return OK;
}
enum { HOST_TO_HOST, UP, DOWN, INSIDE };
int cudaMemcpyAsync(void *target, const void *source, size_t bytes, int kind, void *stream) {
  unsigned from = 0, to = 0;
  enter();
  if (kind > INSIDE) { /* by the addresses */
    cuPointerGetAttribute(&from, 2, source), cuPointerGetAttribute(&to, 2, target);
    kind = (from == 2 ? DOWN : HOST_TO_HOST) | (to == 2 ? UP : HOST_TO_HOST);
  }
  switch (kind) {
    case UP: return IN(cuMemcpyHtoDAsync_v2(target, source, bytes, stream));
    case DOWN: return IN(cuMemcpyDtoHAsync_v2(target, source, bytes, stream));
    case INSIDE: return IN(cuMemcpyDtoDAsync_v2(target, source, bytes, stream));
    default: return memcpy(target, source, bytes), OK;
  }
}
int cudaMemcpy(void *target, const void *source, size_t bytes, int kind) {
  int status = cudaMemcpyAsync(target, source, bytes, kind, NULL);
  return status ? status : IN(cuStreamSynchronize(NULL));
}
int cudaMemsetAsync(void *target, int value, size_t bytes, void *stream) {
  return IN(cuMemsetD8Async(target, value, bytes, stream));
}
int cudaMemset(void *target, int value, size_t bytes) { return cudaMemsetAsync(target, value, bytes, NULL); }

int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return IN(cuStreamCreate(stream, flags)); }
int cudaStreamCreate(void **stream) { return cudaStreamCreateWithFlags(stream, 0); }
int cudaStreamDestroy(void *stream) { return IN(cuStreamDestroy_v2(stream)); }
int cudaStreamSynchronize(void *stream) { return IN(cuStreamSynchronize(stream)); }
int cudaStreamWaitEvent(void *stream, void *event, unsigned flags) {
  return IN(cuStreamWaitEvent(stream, event, flags));
}
int cudaEventCreateWithFlags(void **event, unsigned flags) { return IN(cuEventCreate(event, flags)); }
int cudaEventCreate(void **event) { return cudaEventCreateWithFlags(event, 0); }
int cudaEventDestroy(void *event) { return IN(cuEventDestroy_v2(event)); }
int cudaEventRecord(void *event, void *stream) { return IN(cuEventRecord(event, stream)); }
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) { return cudaEventRecord(event, stream); }
int cudaEventSynchronize(void *event) { return IN(cuEventSynchronize(event)); }
int cudaEventElapsedTime(float *milliseconds, void *start, void *end) {
  return IN(cuEventElapsedTime_v2(milliseconds, start, end));
}
int cudaStreamBeginCapture(void *stream, int mode) { return IN(cuStreamBeginCapture_v2(stream, mode)); }
int cudaStreamEndCapture(void *stream, void **graph) { return IN(cuStreamEndCapture(stream, graph)); }
int cudaStreamIsCapturing(void *stream, int *answer) { return IN(cuStreamIsCapturing(stream, answer)); }
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) {
  return IN(cuGraphInstantiateWithFlags(executable, graph, flags));
}
int cudaGraphLaunch(void *executable, void *stream) { return IN(cuGraphLaunch(executable, stream)); }
int cudaGraphDestroy(void *graph) { return IN(cuGraphDestroy(graph)); }
int cudaGraphExecDestroy(void *executable) { return IN(cuGraphExecDestroy(executable)); }

typedef struct Call { Work function; void *data; } Call;
static void call_now(void *data) { Call *one = data; one->function(one->data); }
int cudaLaunchHostFunc(void *stream, Work function, void *data) {
  Call one = {function, data};
  return IN(null_enqueue(stream, HOST, call_now, &one, sizeof one, NULL, 0));
}

/* Kernels that nvcc compiled into a library: registered, launched, and nothing more. */
void **__cudaRegisterFatBinary(void *binary) { static void *handle[2]; return handle; }
typedef struct Size { unsigned x, y, z; } Size;
int cudaLaunchKernel(const void *kernel, Size grid, Size block, void **values, size_t shared, void *stream) {
  null_counted[launches]++;
  enter();
  return noted(null_enqueue(stream, KERNEL, NULL, NULL, 0, NULL, 0));
}
int __cudaLaunchKernel(const void *kernel, Size grid, Size block, void **values, size_t shared, void *stream) {
  return cudaLaunchKernel(kernel, grid, block, values, shared, stream);
}
int cudaLaunchCooperativeKernel(const void *kernel, Size grid, Size block, void **values, size_t shared, void *stream) {
  return cudaLaunchKernel(kernel, grid, block, values, shared, stream);
}
typedef struct Pushed { Size grid, block; size_t shared; void *stream; } Pushed;
static _Thread_local Pushed pushed;
int __cudaPushCallConfiguration(Size grid, Size block, size_t shared, void *stream) {
  pushed = (Pushed){grid, block, shared, stream};
  return OK;
}
int __cudaPopCallConfiguration(Size *grid, Size *block, size_t *shared, void **stream) {
  *grid = pushed.grid, *block = pushed.block, *shared = pushed.shared, *stream = pushed.stream;
  return OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int threads, size_t shared,
                                                           unsigned flags) {
  return *blocks = 1, OK;
}
