/* CUDA graphs of the null GPU: work that was captured, to be queued again. */
#include "queue.h"
#include <stdlib.h>
#include <string.h>

int cuStreamBeginCapture_v2(void *handle, int mode) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && (!stream || stream->capture || stream->index < DEVICES)) status = CAPTURE_UNSUPPORTED;
  if (!status) stream->capture = calloc(1, sizeof(Graph)), null_captures++;
  LEAVE
}

int cuStreamIsCapturing(void *handle, int *answer) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && !stream) status = INVALID_HANDLE;
  if (!status) *answer = stream->capture != NULL;
  LEAVE
}

int cuStreamEndCapture(void *handle, Graph **graph) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && (!stream || !stream->capture)) status = INVALID_HANDLE;
  if (!status) *graph = stream->capture, stream->capture = NULL, null_captures--;
  LEAVE
}

/* ---- What a graph holds ---- */
int cuGraphGetNodes(const Graph *graph, Operation **nodes, size_t *count) {
  size_t found = 0;
  for (Operation *one = graph->head; one; one = one->next) {
    if (!one->work && !one->count && one->kind != HOST && one->kind != KERNEL) continue;
    if (nodes && found < *count) nodes[found] = one;
    found++;
  }
  return *count = found, OK;
}
int cuGraphNodeGetType(const Operation *node, int *kind) { return *kind = node->kind, OK; }
/* Of CUDA_MEMCPY3D what tells where the bytes come from. */
int cuGraphMemcpyNodeGetParams(const Operation *node, char *parameters) {
  memset(parameters, 0, 200);
  uintptr_t source = node->ranges[1].start;
  Block *block = null_block(source, 1);
  int on_device = block && block->device >= 0;
  *(int *)(parameters + 32) = on_device ? 2 : 1;                /* srcMemoryType */
  *(uintptr_t *)(parameters + (on_device ? 48 : 40)) = source;  /* srcDevice, srcHost */
  return OK;
}

int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
  ENTER
  if (!status) {
    null_counted[live_graphs]++;
    *executable = calloc(1, sizeof **executable);
    for (Operation *one = graph->head; one; one = one->next) {
      Operation *copy = memcpy(calloc(1, sizeof *copy), one, sizeof *one);
      copy->next = NULL;
      copy->data = memcpy(malloc(one->bytes + 1), one->data ? one->data : "", one->bytes);
      copy->ranges = memcpy(malloc(one->count * sizeof(Range) + 1), one->ranges, one->count * sizeof(Range));
      null_append(&(*executable)->head, &(*executable)->tail, copy);
    }
  }
  LEAVE
}

int cuGraphLaunch(Graph *executable, void *handle) {
  ENTER
  Stream *stream = status ? NULL : null_stream(handle);
  if (!status && !stream) status = INVALID_HANDLE;
  for (Operation *one = status ? NULL : executable->head; one; one = one->next) {
    if (one->kind == HOST) null_violation("a graph runs a host function again, with what its first run has given back");
    for (int i = 0; i < one->count; i++)
      if (one->ranges[i].bytes && !null_block(one->ranges[i].start, one->ranges[i].bytes))
        null_violation("a graph uses %zu bytes that were given back", one->ranges[i].bytes);
    if (one->kind != HOST && (one->work || one->count))
      null_enqueue(handle, one->kind, one->work, one->data, one->bytes, one->ranges, one->count);
  }
  null_counted[graph_launches]++;
  null_traced("graph stream %d", stream ? stream->index : -1);
  LEAVE
}

static int destroy_graph(Graph *graph) {
  ENTER
  for (Operation *one = graph->head, *next; one; one = next) next = one->next, null_release(one);
  free(graph);
  LEAVE
}
int cuGraphDestroy(Graph *graph) { return destroy_graph(graph); }
int cuGraphExecDestroy(Graph *executable) {
  null_lock();
  null_counted[live_graphs]--;
  null_unlock();
  return destroy_graph(executable);
}
