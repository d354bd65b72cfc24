/* Streams and events of the null GPU.
 *
 * Work is queued and runs as late as the rules of CUDA allow: when somebody waits for it. A host that reads before
 * it waited, or writes what is still to be read, gets the wrong bits. Beside that each stream has a clock of what it
 * knows to be done on every other: access to bytes that another stream may still touch is a violation.
 */
#include "queue.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Stream streams[STREAMS];
static int used = DEVICES; /* the first ones are the devices' legacy default streams */
static Clock host;
_Thread_local int null_captures;

static void merge(Clock *into, const Clock *from) {
  for (int i = 0; i < used; i++) if (into->at[i] < from->at[i]) into->at[i] = from->at[i];
}

Stream *null_stream(void *handle) {
  Context *context;
  if (handle == NULL || handle == (void *)1 || handle == (void *)2) {
    if (null_context(&context)) return NULL;
    Stream *legacy = &streams[context->device];
    *legacy = (Stream){context, 1, 1, context->device, legacy->head, legacy->tail, legacy->queued, legacy->done,
                       legacy->known, NULL};
    return legacy;
  }
  Stream *stream = handle;
  if (stream < streams + DEVICES || stream >= streams + used || !stream->alive) {
    null_violation("stream %p is none, or was destroyed", handle);
    return NULL;
  }
  return stream;
}

int null_device_of(void *handle) {
  Stream *stream = null_stream(handle);
  return stream ? stream->context->device : -1;
}

void null_append(Operation **head, Operation **tail, Operation *operation) {
  if (*tail) (*tail)->next = operation; else *head = operation;
  *tail = operation;
}

void null_release(Operation *operation) {
  free(operation->data);
  free(operation->ranges);
  free(operation);
}

static void run_to(Stream *stream, uint64_t tick) {
  while (stream->head && stream->done < tick) {
    Operation *one = stream->head;
    if (one->waits) run_to(&streams[one->waited_stream], one->waited);
    if (one->work) one->work(one->data);
    if (!(stream->head = one->next)) stream->tail = NULL;
    stream->done = one->tick;
    null_release(one);
  }
}

int null_finish(void *handle) {
  Stream *stream = null_stream(handle);
  if (!stream) return INVALID_HANDLE;
  run_to(stream, stream->queued);
  merge(&host, &stream->known);
  if (host.at[stream->index] < stream->queued) host.at[stream->index] = stream->queued;
  return OK;
}

void null_finish_all(int device) {
  for (int i = 0; i < used; i++) {
    if (!streams[i].context || streams[i].context->device != device) continue;
    run_to(&streams[i], streams[i].queued);
    host.at[i] = streams[i].queued;
  }
}

static void check_order(Stream *stream, const Operation *one) {
  for (int i = 0; i < one->count; i++) {
    const Range *range = &one->ranges[i];
    Block *block = null_block(range->start, range->bytes);
    if (!block) continue; /* pageable memory of the host: copied at once */
    unsigned kept = block->accesses < 64 ? block->accesses : 64;
    for (unsigned k = 0; k < kept; k++) {
      struct Access *other = &block->recent[k];
      int apart = other->range.start + other->range.bytes <= range->start ||
                  range->start + range->bytes <= other->range.start;
      if (apart || other->stream == stream->index || !(other->range.writes || range->writes)) continue;
      if (stream->known.at[other->stream] < other->tick)
        null_violation("stream order: stream %d %s %zu bytes that stream %d may still %s: wait for its event",
                       stream->index, range->writes ? "writes" : "reads", range->bytes, other->stream,
                       other->range.writes ? "write" : "read");
    }
    block->recent[block->accesses++ % 64] = (struct Access){*range, stream->index, one->tick};
  }
}

/* The legacy default stream waits for all blocking streams of its device, and they for it. */
static void order_by_default(Stream *stream) {
  int legacy = stream->index < DEVICES;
  for (int i = 0; stream->blocking && i < used; i++) {
    Stream *other = &streams[i];
    if (other == stream || other->context != stream->context || !other->alive || !other->blocking) continue;
    if (!legacy && other->index >= DEVICES) continue;
    run_to(other, other->queued);
    merge(&stream->known, &other->known);
    stream->known.at[i] = other->queued;
  }
}

static int submit(Stream *stream, Operation *one) {
  if (stream->capture) {
    null_append(&stream->capture->head, &stream->capture->tail, one);
    return OK;
  }
  merge(&stream->known, &host);
  order_by_default(stream);
  one->tick = ++stream->queued;
  stream->known.at[stream->index] = one->tick;
  if (one->waits) {
    one->waited = one->waits->tick;
    one->waited_stream = one->waits->stream;
    merge(&stream->known, &one->waits->known);
  }
  if (one->records) {
    Event *event = one->records;
    event->recorded = 1, event->stream = stream->index, event->tick = one->tick, event->known = stream->known;
  }
  check_order(stream, one);
  null_append(&stream->head, &stream->tail, one);
  return OK;
}

int null_enqueue(void *handle, int kind, Work work, const void *data, size_t bytes, const Range *ranges, int count) {
  Stream *stream = null_stream(handle);
  if (!stream) return INVALID_HANDLE;
  const char *fault = getenv("NULL_CUDA_FAULT"); /* a file: where there is one, this work breaks the device */
  if (fault && !unlink(fault)) null_break(stream->context->device, 700);
  Operation *one = calloc(1, sizeof *one);
  *one = (Operation){.kind = kind, .work = work, .bytes = bytes, .count = count};
  one->data = memcpy(malloc(bytes + 1), data ? data : "", data ? bytes : 0);
  one->ranges = memcpy(malloc(count * sizeof *ranges + 1), ranges ? ranges : (Range *)"", count * sizeof *ranges);
  return submit(stream, one);
}

/* ---- CUDA's functions ---- */

int cuStreamCreate(void **handle, unsigned flags) {
  ENTER
  if (!status && (flags > 1 || used == STREAMS)) status = INVALID_VALUE;
  if (!status) {
    Stream *stream = &streams[used];
    *stream = (Stream){.context = context, .alive = 1, .blocking = !flags, .index = used++};
    *handle = stream;
    null_counted[live_streams]++;
  }
  LEAVE
}

int cuStreamCreateWithPriority(void **handle, unsigned flags, int priority) { return cuStreamCreate(handle, flags); }

int cuStreamDestroy_v2(void *handle) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && (!stream || stream->index < DEVICES)) status = INVALID_HANDLE;
  if (!status) {
    run_to(stream, stream->queued);
    stream->alive = 0;
    null_counted[live_streams]--;
  }
  LEAVE
}

static int waited(Context *context, const char *what) {
  null_counted[synchronisations]++;
  null_traced("synchronise %s", what);
  return null_captures ? CAPTURE_UNSUPPORTED : context->broken;
}

int cuStreamSynchronize(void *handle) {
  ENTER
  if (!status) status = waited(context, "stream");
  if (!status) status = null_finish(handle);
  if (!status) status = context->broken; /* an error of the work shows where it is waited for */
  LEAVE
}

int cuStreamQuery(void *handle) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && !stream) status = INVALID_HANDLE;
  if (!status) status = stream->head ? NOT_READY : OK;
  if (status != INVALID_HANDLE && stream) null_finish(handle); /* done when it is asked again */
  LEAVE
}

int cuCtxSynchronize(void) {
  ENTER
  if (!status) status = waited(context, "context");
  if (!status) null_finish_all(context->device);
  LEAVE
}

int cuStreamWaitEvent(void *handle, Event *event, unsigned flags) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && (!stream || !event->alive)) status = INVALID_HANDLE;
  if (!status && event->recorded) {
    Operation *one = calloc(1, sizeof *one);
    one->waits = event;
    null_traced("wait stream %d", stream->index);
    submit(stream, one);
  }
  LEAVE
}

int cuEventCreate(Event **event, unsigned flags) {
  ENTER
  if (!status) {
    *event = calloc(1, sizeof **event);
    (*event)->alive = 1, (*event)->timed = !(flags & 2);
    null_counted[live_events]++;
  }
  LEAVE
}

int cuEventDestroy_v2(Event *event) { /* its memory stays: work that is queued may name it */
  ENTER
  if (!status && !event->alive) status = INVALID_HANDLE;
  if (!status) event->alive = 0, null_counted[live_events]--;
  LEAVE
}

int cuEventRecord(Event *event, void *handle) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && (!stream || !event->alive)) status = INVALID_HANDLE;
  if (!status) {
    Operation *one = calloc(1, sizeof *one);
    one->records = event;
    submit(stream, one);
  }
  LEAVE
}

static void finish_event(Event *event) {
  run_to(&streams[event->stream], event->tick);
  merge(&host, &event->known);
}

int cuEventSynchronize(Event *event) {
  ENTER
  if (!status && !event->alive) status = INVALID_HANDLE;
  if (!status) status = waited(context, "event");
  if (!status && event->recorded) finish_event(event);
  LEAVE
}

int cuEventQuery(Event *event) {
  ENTER
  if (!status && !event->alive) status = INVALID_HANDLE;
  if (!status && event->recorded && streams[event->stream].done < event->tick) {
    status = NOT_READY;
    finish_event(event);
  }
  LEAVE
}

int cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
  ENTER
  int timed = start->timed && end->timed && start->recorded && end->recorded;
  if (!status) status = timed ? OK : INVALID_HANDLE;
  *milliseconds = 1;
  LEAVE
}
int cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
  return cuEventElapsedTime(milliseconds, start, end);
}
