/* Work of the null GPU: copies, fills, kernels, and what stand-in libraries do; each is queued on a stream. */
#define _GNU_SOURCE
#include "null.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *kernels;
int null_load_kernels(const char *path) { return (kernels = dlopen(path, RTLD_NOW | RTLD_LOCAL)) ? OK : NOT_FOUND; }

/* Work of a stand-in library on a stream: `work` runs when the stream gets there. */
int null_run(void *stream, Work work, const Range *ranges, int count) {
  null_lock();
  for (int i = 0; i < count; i++) {
    Block *block = null_block(ranges[i].start, ranges[i].bytes);
    if (!block) null_violation("%zu bytes at %#zx are no memory of the GPU", ranges[i].bytes, (size_t)ranges[i].start);
    else if (block->device >= 0 && block->device != null_device_of(stream))
      null_violation("memory of device %d on a stream of device %d", block->device, null_device_of(stream));
  }
  null_counted[launches]++;
  null_traced("run %d ranges", count);
  int status = null_enqueue(stream, KERNEL, work, NULL, 0, ranges, count);
  null_unlock();
  return status;
}

/* ---- Copies ---- */
typedef struct Copy { void *target; const void *source; size_t bytes; int owned; } Copy;
static void copy_now(void *data) {
  Copy *copy = data;
  memcpy(copy->target, copy->source, copy->bytes);
  if (copy->owned) free((void *)copy->source);
}
static int on_device(const char *what, uintptr_t pointer, size_t bytes, int device) {
  Block *block = null_block(pointer, bytes);
  if (block && (block->device == device || block->device < 0)) return 1;
  null_violation("%s: %zu bytes at %#zx are not in memory of device %d", what, bytes, (size_t)pointer, device);
  return 0;
}
/* direction: 'u' up, 'd' down, 'i' inside of the device. Pageable memory is copied at once, and a download waits. */
static int copy(int direction, uintptr_t target, uintptr_t source, size_t bytes, void *stream, int waits) {
  ENTER
  int device = status ? -1 : null_device_of(stream);
  if (!status && device < 0) status = INVALID_HANDLE;
  if (!status && direction != 'd' && !on_device("copy to", target, bytes, device)) status = INVALID_VALUE;
  if (!status && direction != 'u' && !on_device("copy from", source, bytes, device)) status = INVALID_VALUE;
  if (status) { LEAVE }
  int pinned = direction == 'i' || null_block(direction == 'u' ? source : target, bytes) != NULL;
  Copy one = {(void *)target, (const void *)source, bytes, direction == 'u' && !pinned};
  if (one.owned) one.source = memcpy(malloc(bytes + 1), one.source, bytes);
  Range ranges[] = {{target, bytes, 1}, {one.owned ? 0 : source, one.owned ? 0 : bytes, 0}};
  status = null_enqueue(stream, MEMCPY, copy_now, &one, sizeof one, ranges, 2);
  if (direction == 'u') null_counted[uploads]++, null_counted[bytes_up] += bytes;
  if (direction == 'd') null_counted[downloads]++, null_counted[bytes_down] += bytes;
  null_traced("%s %zu%s", direction == 'u' ? "upload" : direction == 'd' ? "download" : "copy", bytes,
              pinned ? "" : " pageable");
  if (!pinned) null_counted[pageable_copies]++;
  if (!status && (waits || (direction == 'd' && !pinned))) {
    null_counted[synchronisations]++;
    status = null_finish(stream);
  }
  LEAVE
}
int cuMemcpyHtoDAsync_v2(uintptr_t target, void *source, size_t bytes, void *stream) {
  return copy('u', target, (uintptr_t)source, bytes, stream, 0);
}
int cuMemcpyDtoHAsync_v2(void *target, uintptr_t source, size_t bytes, void *stream) {
  return copy('d', (uintptr_t)target, source, bytes, stream, 0);
}
int cuMemcpyDtoDAsync_v2(uintptr_t target, uintptr_t source, size_t bytes, void *stream) {
  return copy('i', target, source, bytes, stream, 0);
}
int cuMemcpyHtoD_v2(uintptr_t target, void *source, size_t bytes) {
  return copy('u', target, (uintptr_t)source, bytes, NULL, 1);
}
int cuMemcpyDtoH_v2(void *target, uintptr_t source, size_t bytes) {
  return copy('d', (uintptr_t)target, source, bytes, NULL, 1);
}
typedef struct Fill { void *target; int value; size_t bytes; } Fill;
static void fill_now(void *data) { Fill *one = data; memset(one->target, one->value, one->bytes); }
int cuMemsetD8Async(uintptr_t target, unsigned char value, size_t bytes, void *stream) {
  ENTER
  if (!status && !on_device("fill", target, bytes, null_device_of(stream))) status = INVALID_VALUE;
  Fill one = {(void *)target, value, bytes};
  Range range = {target, bytes, 1};
  if (!status) status = null_enqueue(stream, MEMSET, fill_now, &one, sizeof one, &range, 1);
  LEAVE
}

/* ---- Modules and kernels: g++'s build of the same source runs where a GPU would run the cubin ---- */
typedef struct Module { size_t bytes; char image[]; } Module;
typedef struct Kernel {
  char name[128];
  void (*launch)(const unsigned *sizes, void **values);
  const struct Parameter { int bytes, pointer; } *parameters; /* pointer: 1 is read, 2 is written; ends with 0 bytes */
} Kernel;
typedef struct Launch { const Kernel *kernel; unsigned sizes[6]; uint64_t values[32]; } Launch;

int cuModuleLoadData(Module **module, const char *image) {
  ENTER
  if (!status && memcmp(image, "\177ELF", 4)) status = INVALID_IMAGE;
  if (!status) {
    uint64_t sections = *(const uint64_t *)(image + 40);
    size_t bytes = sections + *(const uint16_t *)(image + 58) * *(const uint16_t *)(image + 60);
    *module = malloc(sizeof **module + bytes);
    (*module)->bytes = bytes;
    memcpy((*module)->image, image, bytes);
    null_counted[live_modules]++;
  }
  LEAVE
}
int cuModuleUnload(Module *module) {
  ENTER
  if (!status) free(module), null_counted[live_modules]--;
  LEAVE
}
int cuModuleGetFunction(Kernel **function, Module *module, const char *name) {
  ENTER
  if (!kernels && getenv("NULL_CUDA_KERNELS")) null_load_kernels(getenv("NULL_CUDA_KERNELS")); /* of a child process */
  if (!status && (!memmem(module->image, module->bytes, name, strlen(name)) || !kernels)) status = NOT_FOUND;
  if (status) { LEAVE }
  char symbol[160];
  Kernel *kernel = calloc(1, sizeof *kernel);
  snprintf(kernel->name, sizeof kernel->name, "%s", name);
  snprintf(symbol, sizeof symbol, "null_launch_%s", name);
  kernel->launch = (void (*)(const unsigned *, void **))dlsym(kernels, symbol);
  snprintf(symbol, sizeof symbol, "null_parameters_%s", name);
  const struct Parameter **parameters = dlsym(kernels, symbol);
  kernel->parameters = parameters ? *parameters : NULL;
  status = kernel->launch && kernel->parameters ? OK : NOT_FOUND;
  *function = kernel;
  LEAVE
}
static void launch_now(void *data) {
  Launch *one = data;
  void *values[32];
  for (int i = 0; i < 32; i++) values[i] = &one->values[i];
  one->kernel->launch(one->sizes, values);
}
int cuLaunchKernel(const Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **values, void **extra) {
  ENTER
  int fits = gx && gy && gz && gy < 65536 && gz < 65536 && bx && by && bz && bx * by * bz <= 1024 && bz <= 64 && !extra;
  if (!status && !fits) status = INVALID_VALUE;
  Launch one = {kernel, {gx, gy, gz, bx, by, bz}, {0}};
  Range ranges[32];
  int count = 0, device = status ? -1 : null_device_of(stream);
  for (int i = 0; !status && kernel->parameters[i].bytes; i++) {
    memcpy(&one.values[i], values[i], kernel->parameters[i].bytes);
    if (!kernel->parameters[i].pointer || !one.values[i]) continue;
    Block *block = null_block(one.values[i], 1);
    if (!on_device(kernel->name, one.values[i], 1, device)) status = INVALID_VALUE;
    else ranges[count++] = (Range){one.values[i], block->start + block->bytes - one.values[i],
                                   kernel->parameters[i].pointer == 2};
  }
  if (!status) status = null_enqueue(stream, KERNEL, launch_now, &one, sizeof one, ranges, count);
  null_counted[launches]++;
  null_traced("launch %s", kernel->name);
  LEAVE
}
