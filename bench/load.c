/* Load for the gateway bench: many WebSocket clients in one thread, cheap enough never to be the bottleneck.
 *
 *   load PORT TARGETS TEMPLATE closed SECONDS          each client sends again as soon as it is answered
 *   load PORT TARGETS TEMPLATE open SECONDS RATE       RATE messages a second over all clients, whatever the answers do
 *   load PORT TARGETS - storm SECONDS RATE             connect, BootNotification, 2 x StatusNotification; RATE new ones a second
 *   load PORT TARGETS - hold SECONDS RATE              as storm, then idle until SECONDS are over
 *
 * TARGETS: a line per client, "path<TAB>authorization or -<TAB>transaction id". TEMPLATE: one CALL, with @ID@ @TX@ @TIME@
 * @WH@ in it. Prints one JSON object: sent, answered, errors, seconds, latencies in microseconds. Latencies of open load
 * count from the time a message was due. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLOSED_ = 0, CONNECTING, SHAKING, OPEN_ };
enum { LOAD_CLOSED, LOAD_OPEN, LOAD_STORM, LOAD_HOLD };

typedef struct {
  int fd, state, step, used, cap, waiting, backlog;
  char *in, *path, *authorization, *transaction, id[24];
  double due, *late;
  int late_from, late_count;
  long sequence, meter;
} Client;

static Client *clients;
static int count, poll_fd, mode, port;
static char *template_;
static float *latencies;
static long latency_count, latency_cap, sent, answered, errors, done;
static double began, measure_from;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) { perror(what); exit(1); }

static void note(double seconds) {
  if (latency_count == latency_cap) {
    latency_cap = latency_cap ? latency_cap * 2 : 1 << 16;
    latencies = realloc(latencies, latency_cap * sizeof *latencies);
  }
  latencies[latency_count++] = seconds * 1e6;
}

static int by_size(const void *a, const void *b) {
  float x = *(float *)a, y = *(float *)b;
  return x < y ? -1 : x > y;
}

static double quantile(double share) { return latency_count ? latencies[(long)(share * (latency_count - 1))] : 0; }

/* A client's frames are masked; the mask may be zero, and then the payload is what it is. */
static void frame(Client *c, const char *text, int length) {
  static char out[70000];
  int head = 2;
  out[0] = (char)0x81;
  if (length < 126) out[1] = (char)(0x80 | length);
  else { out[1] = (char)(0x80 | 126); out[2] = length >> 8; out[3] = length & 255; head = 4; }
  memset(out + head, 0, 4);
  memcpy(out + head + 4, text, length);
  if (send(c->fd, out, head + 4 + length, MSG_NOSIGNAL) != head + 4 + length) errors++;
  sent++;
}

static void timestamp(char *out) {
  struct timespec t;
  struct tm parts;
  clock_gettime(CLOCK_REALTIME, &t);
  gmtime_r(&t.tv_sec, &parts);
  sprintf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
          parts.tm_min, parts.tm_sec, t.tv_nsec / 1000000);
}

static int fill(Client *c, const char *from, char *to) {
  char *start = to, time[96];
  while (*from) {
    if (*from == '@') {
      if (!strncmp(from, "@ID@", 4)) { to += sprintf(to, "%s", c->id); from += 4; continue; }
      if (!strncmp(from, "@TX@", 4)) { to += sprintf(to, "%s", c->transaction); from += 4; continue; }
      if (!strncmp(from, "@WH@", 4)) { to += sprintf(to, "%ld", c->meter += 7); from += 4; continue; }
      if (!strncmp(from, "@TIME@", 6)) { timestamp(time); to += sprintf(to, "%s", time); from += 6; continue; }
    }
    *to++ = *from++;
  }
  return to - start;
}

static const char *STEPS[] = {
    "[2,\"@ID@\",\"BootNotification\",{\"chargePointVendor\":\"Bench\",\"chargePointModel\":\"Load 22\",\"firmwareVersion\":\"1.0\"}]",
    "[2,\"@ID@\",\"StatusNotification\",{\"connectorId\":1,\"errorCode\":\"NoError\",\"status\":\"Available\",\"timestamp\":\"@TIME@\"}]",
    "[2,\"@ID@\",\"StatusNotification\",{\"connectorId\":2,\"errorCode\":\"NoError\",\"status\":\"Available\",\"timestamp\":\"@TIME@\"}]",
};

static void call(Client *c, double due) {
  static char text[65536];
  sprintf(c->id, "%lx-%lx", (long)(c - clients), c->sequence++);
  int length = fill(c, c->step < 3 ? STEPS[c->step] : template_, text);
  c->due = due;
  c->waiting = 1;
  frame(c, text, length);
}

static void next(Client *c, double at) {
  if (c->step < 3) { call(c, at); return; }
  if (mode == LOAD_CLOSED && at < measure_from + 1e9) call(c, at);
  else if (mode == LOAD_OPEN && c->late_count) {
    double due = c->late[c->late_from];
    c->late_from = (c->late_from + 1) & 255;
    c->late_count--;
    call(c, due);
  }
}

static void message(Client *c, const char *text, int length, double at) {
  char id[24];
  if (length > 5 && text[1] == '2' && (!c->waiting || strncmp(text + 4, c->id, strlen(c->id)))) { /* a CALL to us */
    char out[128];
    const char *end = memchr(text + 4, '"', length - 4);
    int n = end ? (int)(end - text - 4) : 0;
    if (n > 0 && n < 40) frame(c, out, sprintf(out, "[4,\"%.*s\",\"NotSupported\",\"\",{}]", n, text + 4));
    return;
  }
  if (!c->waiting) return;
  snprintf(id, sizeof id, "%s", c->id);
  if (length < 5 || (text[1] != '3' && text[1] != '2') || strncmp(text + 4, id, strlen(id))) { errors++; }
  c->waiting = 0;
  if (c->step < 3) {
    if (++c->step == 3) done++;
    if (mode >= LOAD_STORM && c->step == 3) { note(at - began); return; }
  } else {
    answered++;
    if (c->due >= measure_from) note(at - c->due);
  }
  if (c->step < 3 || mode != LOAD_CLOSED || at < measure_from + 1e8) next(c, at);
}

static void start(Client *c) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) fail("socket");
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(c->fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("connect");
  struct epoll_event event = {.events = EPOLLOUT | EPOLLIN, .data.ptr = c};
  if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll");
  c->state = CONNECTING;
}

static void shake(Client *c) {
  char text[2048];
  int n = sprintf(text,
                  "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Protocol: ocpp1.6\r\n%s%s%s\r\n",
                  c->path, port, *c->authorization == '-' ? "" : "Authorization: ",
                  *c->authorization == '-' ? "" : c->authorization, *c->authorization == '-' ? "" : "\r\n");
  if (send(c->fd, text, n, MSG_NOSIGNAL) != n) errors++;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &event);
  c->state = SHAKING;
}

static void gone(Client *c) {
  if (c->state == OPEN_ || c->state == SHAKING) errors++;
  close(c->fd);
  c->state = CLOSED_;
}

static void readable(Client *c) {
  for (;;) {
    if (c->cap - c->used < 2048) c->in = realloc(c->in, c->cap = c->cap ? c->cap * 2 : 4096);
    ssize_t n = recv(c->fd, c->in + c->used, c->cap - c->used, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) { gone(c); return; }
    if (n < 0) break;
    c->used += n;
    if (c->used < c->cap) break;
  }
  double at = now();
  int from = 0;
  if (c->state == SHAKING) {
    char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
    if (!end) return;
    if (strncmp(c->in + 9, "101", 3)) { fprintf(stderr, "refused: %.60s\n", c->in); gone(c); return; }
    from = end - c->in + 4;
    c->state = OPEN_;
    next(c, at);
  }
  while (c->used - from >= 2) {
    unsigned char *f = (unsigned char *)c->in + from;
    int op = f[0] & 15, length = f[1] & 127, head = 2;
    if (length == 126) { if (c->used - from < 4) break; length = f[2] << 8 | f[3]; head = 4; }
    if (c->used - from < head + length) break;
    if (op == 1) message(c, (char *)f + head, length, at);
    else if (op == 9) { char pong[6] = {(char)0x8a, (char)0x80, 0, 0, 0, 0}; send(c->fd, pong, 6, MSG_NOSIGNAL); }
    else if (op == 8) { gone(c); return; }
    from += head + length;
  }
  memmove(c->in, c->in + from, c->used - from);
  c->used -= from;
  if (!c->used) { free(c->in); c->in = NULL; c->cap = 0; }
}

/* Sleeps to the nanosecond: epoll's whole milliseconds would be none at all between two messages of an open loop, and a
   generator that spins takes a core from the servers it measures. */
static void events(double until) {
  struct epoll_event found[512];
  struct pollfd any = {.fd = poll_fd, .events = POLLIN};
  do {
    double left = until - now();
    struct timespec wait = {.tv_sec = left > 0 ? (time_t)left : 0, .tv_nsec = left > 0 ? (left - (time_t)left) * 1e9 : 0};
    ppoll(&any, 1, &wait, NULL);
    int n = epoll_wait(poll_fd, found, 512, 0);
    for (int i = 0; i < n; i++) {
      Client *c = found[i].data.ptr;
      if (c->state == CONNECTING && (found[i].events & EPOLLOUT)) shake(c);
      else if (c->state != CLOSED_ && found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
    }
  } while (now() < until);
}

static char *slurp(const char *name) {
  FILE *file = fopen(name, "r");
  if (!file) fail(name);
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *text = malloc(size + 1);
  text[fread(text, 1, size, file)] = 0;
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  if (argc < 6) { fprintf(stderr, "load PORT TARGETS TEMPLATE closed|open|storm|hold SECONDS [RATE]\n"); return 2; }
  struct rlimit limit = {1 << 20, 1 << 20};
  if (setrlimit(RLIMIT_NOFILE, &limit)) { getrlimit(RLIMIT_NOFILE, &limit); limit.rlim_cur = limit.rlim_max; setrlimit(RLIMIT_NOFILE, &limit); }
  signal(SIGPIPE, SIG_IGN);
  port = atoi(argv[1]);
  char *targets = slurp(argv[2]);
  template_ = strcmp(argv[3], "-") ? slurp(argv[3]) : NULL;
  mode = !strcmp(argv[4], "closed") ? LOAD_CLOSED : !strcmp(argv[4], "open") ? LOAD_OPEN : !strcmp(argv[4], "storm") ? LOAD_STORM : LOAD_HOLD;
  double seconds = atof(argv[5]), rate = argc > 6 ? atof(argv[6]) : 500;
  for (char *p = targets; *p; p++) count += *p == '\n';
  clients = calloc(count, sizeof *clients);
  char *line = targets;
  for (int i = 0; i < count; i++, line++) {
    Client *c = clients + i;
    c->path = strsep(&line, "\t"); c->authorization = strsep(&line, "\t"); c->transaction = strsep(&line, "\n");
    line--;
    c->late = malloc(256 * sizeof(double));
    c->meter = 1000;
  }
  poll_fd = epoll_create1(0);
  measure_from = 1e12;
  double beginning = began = now();
  /* Who connects is not what closed and open load measure: slowly enough for every server. */
  double connect_rate = mode >= LOAD_STORM ? rate : getenv("LOAD_CONNECT_RATE") ? atof(getenv("LOAD_CONNECT_RATE")) : 200;
  for (int i = 0; i < count; i++) {
    events(beginning + i / connect_rate);
    began = beginning;
    start(clients + i);
  }
  if (mode >= LOAD_STORM) {
    double until = beginning + (mode == LOAD_HOLD ? seconds : seconds + 60);
    while (now() < until && (mode == LOAD_HOLD || (done < count && now() < until))) events(now() + 0.01);
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    printf("{\"clients\": %d, \"done\": %ld, \"errors\": %ld, \"seconds\": %.3f}\n", count, done, errors,
           mode == LOAD_STORM && latency_count ? latencies[latency_count - 1] / 1e6 : now() - beginning);
    return 0;
  }
  while (done < count && now() < beginning + 60 + count / connect_rate) events(now() + 0.05);
  if (done < count) fprintf(stderr, "only %ld of %d are connected\n", done, count);
  double from = now(), until = from + 1 + seconds; /* the first second warms up */
  measure_from = from + 1;
  long answered_before = 0;
  if (mode == LOAD_CLOSED) {
    for (int i = 0; i < count; i++) if (clients[i].state == OPEN_ && !clients[i].waiting) call(clients + i, now());
    events(measure_from);
    answered_before = answered;
    events(until);
  } else {
    double due = from;
    for (long i = 0; due < until; due = from + ++i / rate) {
      Client *c = clients + i % count;
      if (due >= measure_from && !answered_before) answered_before = answered;
      events(due);
      if (c->state != OPEN_) { errors++; continue; }
      if (!c->waiting) call(c, due);
      else if (c->late_count < 256) { c->late[(c->late_from + c->late_count++) & 255] = due; }
      else errors++;
    }
  }
  long in_time = answered - answered_before;
  double took = now() - measure_from;
  mode = LOAD_HOLD; /* nothing new: what is under way is waited for */
  for (double end = now() + 10; now() < end;) {
    long open = 0;
    events(now() + 0.01);
    for (int i = 0; i < count; i++) open += clients[i].state == OPEN_ && clients[i].waiting;
    if (!open) break;
  }
  long lost = 0;
  for (int i = 0; i < count; i++) lost += clients[i].waiting;
  qsort(latencies, latency_count, sizeof *latencies, by_size);
  printf("{\"clients\": %d, \"sent\": %ld, \"answered\": %ld, \"in_time\": %ld, \"unanswered\": %ld, \"errors\": %ld, \"seconds\": %.3f,"
         " \"per_s\": %.1f, \"p50_us\": %.0f, \"p95_us\": %.0f, \"p99_us\": %.0f}\n",
         count, sent - 3L * count, answered, in_time, lost, errors, took, in_time / took, quantile(0.5), quantile(0.95), quantile(0.99));
  return 0;
}
