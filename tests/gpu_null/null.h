/* What the sources of the null GPU share. Device memory is the host's. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
  OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_IMAGE = 200, INVALID_HANDLE = 400,
  NOT_FOUND = 500, NOT_READY = 600, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
};
enum { DEVICES = 2, STREAMS = 256, ALIGNMENT = 256 };

typedef struct Context { int device, retained, broken; } Context; /* broken: the sticky error, 0 for none */

/* One range of memory that an operation reads or writes. */
typedef struct Range { uintptr_t start; size_t bytes; int writes; } Range;

typedef struct Block { /* memory that was handed out */
  uintptr_t start;
  size_t bytes;
  int device;                                             /* -1: pinned memory of the host */
  struct Access { Range range; int stream; uint64_t tick; } recent[64];
  unsigned accesses;
} Block;

#define COUNTS(X) X(calls) X(allocations) X(allocated) X(freed) X(uploads) X(bytes_up) X(downloads) X(bytes_down) \
  X(pageable_copies) X(launches) X(synchronisations) X(graph_launches) X(live_blocks) X(live_streams) X(live_events) \
  X(live_graphs) X(live_modules) X(live_contexts)
#define X(name) name,
enum { COUNTS(X) COUNT };
#undef X
extern uint64_t null_counted[COUNT];

typedef void (*Work)(void *data);

#define ENTER Context *context; null_lock(); null_counted[calls]++; int status = null_context(&context);
#define LEAVE null_unlock(); return status;

void null_break(int device, int error);                 /* sticky, until the context is reset */
void null_lock(void);
void null_unlock(void);
void null_violation(const char *format, ...);           /* what a GPU would answer with garbage or a crash */
void null_traced(const char *format, ...);
Block *null_block(uintptr_t start, size_t bytes);       /* the block that holds these bytes, or NULL */
int null_context(Context **context);                    /* of this thread; INVALID_CONTEXT or its sticky error */
int null_device_of(void *stream);                       /* its device, -1 for a handle that is none */
/* Queue work that touches these ranges; `data` is copied. NULL work does nothing. */
enum { KERNEL, MEMCPY, MEMSET, HOST }; /* CUgraphNodeType */
int null_enqueue(void *stream, int kind, Work work, const void *data, size_t bytes, const Range *ranges, int count);
int null_finish(void *stream);                          /* run what is queued there, without counting it */
void null_finish_all(int device);
