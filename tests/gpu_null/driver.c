/* libcuda.so.1 of the null GPU: devices, contexts, memory, look-up. Strict: what a GPU would answer with
 * garbage, a crash or a hang is a violation here, kept as text (null_violations) beside the error that is returned. */
#define _GNU_SOURCE
#include "queue.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILL = 0xA5, FENCE = 0x5C, FENCE_BYTES = 256, FILLED_AT_MOST = 1 << 26 };

uint64_t null_counted[COUNT];
static Context contexts[DEVICES];
static _Thread_local Context *stack[16];
static _Thread_local int depth; /* the current context is stack[depth] */
static Block *blocks;
static int setting(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text ? atoi(text) : otherwise;
}
static size_t total(void) { return (size_t)setting("NULL_CUDA_MB", 16 << 10) << 20; } /* of memory */
static size_t block_count, block_room, in_use;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char violations[1 << 16], trace[1 << 20];

void null_lock(void) { pthread_mutex_lock(&mutex); }
void null_unlock(void) { pthread_mutex_unlock(&mutex); }

static void write_line(char *text, size_t room, const char *format, va_list values) {
  size_t length = strlen(text);
  if (length + 256 > room) return;
  vsnprintf(text + length, 254, format, values);
  strcat(text, "\n");
}
void null_violation(const char *format, ...) {
  va_list values;
  va_start(values, format);
  write_line(violations, sizeof violations, format, values);
  va_end(values);
}
void null_traced(const char *format, ...) {
  va_list values;
  va_start(values, format);
  write_line(trace, sizeof trace, format, values);
  va_end(values);
}

int null_context(Context **context) {
  *context = stack[depth];
  if (!*context) {
    null_violation("a call without a current context in this thread: cuCtxSetCurrent comes first");
    return INVALID_CONTEXT;
  }
  return (*context)->broken;
}

Block *null_block(uintptr_t start, size_t bytes) {
  for (size_t i = 0; i < block_count; i++)
    if (blocks[i].start <= start && start + bytes <= blocks[i].start + blocks[i].bytes) return &blocks[i];
  return NULL;
}

/* ---- What a test asks and tells (floor.py) ---- */
const char *null_violations(void) { return violations; }
const char *null_trace(void) { return trace; }
void null_reset(void) { /* live_* stay */
  for (int i = 0; i < live_blocks; i++) null_counted[i] = 0;
  violations[0] = trace[0] = 0;
}
#define X(name) #name " "
const char *null_names(void) { return COUNTS(X); }
#undef X
const uint64_t *null_counts(void) { return null_counted; }
void null_break(int device, int error) { contexts[device].broken = error; }
/* ---- Devices and contexts ---- */

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { return *version = setting("NULL_CUDA_VERSION", 13000), OK; }
int cuDeviceGetCount(int *count) { return *count = DEVICES, OK; }
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal >= 0 && ordinal < DEVICES ? OK : 101;
}
int cuDeviceGetName(char *name, int room, int device) { return snprintf(name, room, "Null GPU %d", device), OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return *bytes = total(), OK; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return memset(uuid, 0x10 + device, 16), OK; }
int cuDeviceGetPCIBusId(char *text, int room, int device) {
  return snprintf(text, room, "0000:%02X:00.0", device + 1), OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int capability = setting("NULL_CUDA_CAPABILITY", 89);
  switch (attribute) {
    case 1: case 2: *value = 1024; break; /* threads of a block, and along x */
    case 10: *value = 32; break;          /* warp */
    case 16: *value = 100; break;         /* multiprocessors */
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    default: *value = 1;
  }
  return device >= 0 && device < DEVICES ? OK : 101;
}
int cuDevicePrimaryCtxRetain(Context **context, int device) {
  null_lock();
  *context = &contexts[device];
  (*context)->device = device;
  if (!(*context)->retained++) null_counted[live_contexts]++;
  null_unlock();
  return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  null_lock();
  int status = contexts[device].retained ? OK : INVALID_CONTEXT;
  if (status) null_violation("a primary context is released more often than it was retained");
  else if (!--contexts[device].retained) null_counted[live_contexts]--;
  null_unlock();
  return status;
}
int cuDevicePrimaryCtxReset_v2(int device) { return contexts[device].broken = 0, OK; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  return *flags = 0, *active = contexts[device].retained > 0, OK;
}
int cuCtxSetCurrent(Context *context) {
  if (context && (context < contexts || context >= contexts + DEVICES || !context->retained)) {
    null_violation("cuCtxSetCurrent of %p, which is no context", (void *)context);
    return INVALID_CONTEXT;
  }
  return stack[depth] = context, OK;
}
int cuCtxGetCurrent(Context **context) { return *context = stack[depth], OK; }
int cuCtxPushCurrent_v2(Context *context) { return stack[++depth] = context, OK; }
int cuCtxPopCurrent_v2(Context **context) {
  if (!stack[depth]) return INVALID_CONTEXT;
  Context *top = stack[depth];
  stack[depth] = NULL;
  if (depth) depth--;
  if (context) *context = top;
  return OK;
}
int cuCtxGetDevice(int *device) {
  ENTER
  if (!status) *device = context->device;
  LEAVE
}

/* ---- Memory ---- */
static size_t whole_of(size_t bytes) { return (bytes + FENCE_BYTES + 511) / 512 * 512; }
static int take(uintptr_t *pointer, size_t bytes, int device) {
  if (!bytes) return INVALID_VALUE;
  if (device >= 0 && in_use + bytes > total()) return OUT_OF_MEMORY;
  if (null_captures) return null_violation("memory is taken inside of a capture"), CAPTURE_UNSUPPORTED;
  size_t whole = whole_of(bytes);
  unsigned char *memory = aligned_alloc(512, whole);
  memset(memory, FILL, bytes < FILLED_AT_MOST ? bytes : FILLED_AT_MOST); /* what nobody wrote must not look right */
  memset(memory + bytes, FENCE, whole - bytes);
  if (block_count == block_room) blocks = realloc(blocks, (block_room = 2 * block_room + 64) * sizeof *blocks);
  Block *block = memset(&blocks[block_count++], 0, sizeof *block);
  block->start = *pointer = (uintptr_t)memory, block->bytes = bytes, block->device = device;
  if (device >= 0) in_use += bytes;
  null_counted[allocations]++, null_counted[allocated] += bytes, null_counted[live_blocks]++;
  null_traced("take %s %zu", device < 0 ? "pinned" : "device", bytes);
  return OK;
}
static void check_fence(const Block *block) {
  for (size_t at = block->bytes; at < whole_of(block->bytes); at++) {
    if (((unsigned char *)block->start)[at] == FENCE) continue;
    null_violation("something wrote behind the end of a block of %zu bytes", block->bytes);
    return;
  }
}
void null_check_fences(void) { for (size_t i = 0; i < block_count; i++) check_fence(&blocks[i]); }
static int give(uintptr_t pointer, int pinned) {
  for (size_t i = 0; i < block_count; i++) {
    Block *block = &blocks[i];
    if (block->start != pointer || (block->device < 0) != pinned) continue;
    for (int device = 0; device < DEVICES; device++) null_finish_all(device); /* as the driver does */
    check_fence(block);
    if (!pinned) in_use -= block->bytes;
    free((void *)pointer);
    *block = blocks[--block_count];
    null_counted[freed]++, null_counted[live_blocks]--;
    return OK;
  }
  null_violation("%#zx is given back, but was not taken as %s memory", (size_t)pointer, pinned ? "pinned" : "device");
  return INVALID_VALUE;
}
int cuMemAlloc_v2(uintptr_t *pointer, size_t bytes) {
  ENTER
  if (!status) status = take(pointer, bytes, context->device);
  LEAVE
}
int cuMemHostAlloc(uintptr_t *pointer, size_t bytes, unsigned flags) {
  ENTER
  if (!status) status = take(pointer, bytes, -1);
  LEAVE
}
int cuMemFree_v2(uintptr_t pointer) {
  ENTER
  if (!status && pointer) status = give(pointer, 0);
  LEAVE
}
int cuMemFreeHost(uintptr_t pointer) {
  ENTER
  if (!status) status = give(pointer, 1);
  LEAVE
}
int cuMemGetInfo_v2(size_t *unused, size_t *whole) { return *whole = total(), *unused = total() - in_use, OK; }
int cuPointerGetAttribute(void *answer, int attribute, uintptr_t pointer) {
  Block *block = null_block(pointer, 1);
  if (!block) return INVALID_VALUE;
  switch (attribute) {
    case 1: *(Context **)answer = block->device < 0 ? NULL : &contexts[block->device]; return OK;
    case 2: *(unsigned *)answer = block->device < 0 ? 1 : 2; return OK; /* memory type: host, device */
    case 3: case 4: *(uintptr_t *)answer = pointer; return OK;
    case 9: *(int *)answer = block->device; return OK;
    default: return INVALID_VALUE;
  }
}

/* ---- Names and look-up ---- */
int cuGetErrorName(int error, const char **text) { return *text = error ? "CUDA_ERROR" : "CUDA_SUCCESS", OK; }
int cuGetErrorString(int error, const char **text) { return *text = error ? "error of the null GPU" : "no error", OK; }
int cuTensorMapEncodeTiled(void) { return INVALID_VALUE; }
int cuGetExportTable(const void **table, const void *id) { return *table = NULL, NOT_FOUND; }
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
  static const char *newer[] = {"%s_v2", "%s"};
  static void *self;
  char symbol[128];
  Dl_info info;
  if (!self && dladdr((void *)cuInit, &info)) self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  *function = NULL;
  for (int i = 0; i < 2 && !*function; i++) {
    snprintf(symbol, sizeof symbol, newer[i], name);
    *function = dlsym(self, symbol);
  }
  if (found) *found = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
