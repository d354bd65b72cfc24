/* How streams.c and graphs.c hold work that is queued. */
#pragma once
#include "null.h"

typedef struct Clock { uint64_t at[STREAMS]; } Clock;
typedef struct Operation {
  struct Operation *next;
  int kind; /* KERNEL ... */
  Work work;
  void *data;
  size_t bytes;
  Range *ranges;
  int count;
  struct Event *records, *waits;
  uint64_t tick, waited; /* waited: ticks of the stream of `waits` that must be done before */
  int waited_stream;
} Operation;
typedef struct Stream {
  Context *context;
  int alive, blocking, index;
  Operation *head, *tail;
  uint64_t queued, done;
  Clock known;
  struct Graph *capture;
} Stream;
typedef struct Event { int alive, timed, recorded, stream; uint64_t tick; Clock known; } Event;
typedef struct Graph { Operation *head, *tail; int broken; } Graph;

extern _Thread_local int null_captures;                 /* of this thread: what is refused in it (mode THREAD_LOCAL) */
Stream *null_stream(void *handle);                      /* NULL for a handle that is none */
void null_append(Operation **head, Operation **tail, Operation *operation);
void null_release(Operation *operation);
