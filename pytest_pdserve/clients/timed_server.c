/* A server of completions whose chunks follow a schedule, and which says when it truly sent them.
 *
 *   timed_server PORT FIRST_MS GAP_MS TOKENS
 *
 * Every POST is answered with TOKENS chunks, of chat where its path says so: the first FIRST_MS after the request arrived (the
 * kernel's time of receipt), each later one GAP_MS after the one before. GET /truth returns one line
 * per request: arrival, first chunk, last chunk (ns, CLOCK_REALTIME), chunks; and forgets them.
 * Listens on loopback only. One thread, epoll, no allocation while it serves.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/net_tstamp.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 16384
#define MAX_REQUESTS 200000
#define SPIN_NS 150000

typedef struct { int64_t arrival, first, last; int chunks; } truth_t;
typedef struct {
    int active, sent, slot, chat;
    size_t have, need; /* bytes of the request so far, and in all; 0 while its head is unknown */
    char head[4096];
} conn_t;
typedef struct { int64_t due; int fd, slot; } due_t;

static conn_t conns[MAX_FD];
static truth_t truths[MAX_REQUESTS];
static int requests;
static due_t heap[MAX_FD];
static int heaped;
static int64_t first_ns, gap_ns;
static int tokens;
static char chunk[2][512], last_chunk[2][1024]; /* of completions, of chat */
static size_t chunk_len[2], last_len[2];
static const char *HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                          "Transfer-Encoding: chunked\r\n\r\n";

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void push(int64_t due, int fd, int slot) {
    int at = heaped++;
    while (at > 0 && heap[(at - 1) / 2].due > due) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = (due_t){due, fd, slot};
}

static due_t pop(void) {
    due_t top = heap[0], moved = heap[--heaped];
    int at = 0;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= heaped) break;
        if (child + 1 < heaped && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= moved.due) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
    return top;
}

static void put(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t took = send(fd, data, length, MSG_NOSIGNAL);
        if (took < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (took <= 0) return;
        data += took;
        length -= took;
    }
}

static size_t as_chunk(char *out, size_t size, const char *body) {
    return snprintf(out, size, "%zx\r\n%s\r\n", strlen(body), body);
}

static void prepare(int chat) {
    const char *kind = chat ? "chat.completion.chunk" : "text_completion";
    const char *text = chat ? "\"delta\":{\"content\":\" word\"}" : "\"text\":\" word\"";
    char word[300], body[900];
    snprintf(word, sizeof word, "data: {\"id\":\"cmpl-1\",\"object\":\"%s\",\"model\":\"timed\","
             "\"choices\":[{\"index\":0,%s,\"finish_reason\":", kind, text);
    snprintf(body, sizeof body, "%snull}]}\n\n", word);
    chunk_len[chat] = as_chunk(chunk[chat], sizeof chunk[chat], body);
    snprintf(body, sizeof body, "%s\"length\"}]}\n\n"
             "data: {\"id\":\"cmpl-1\",\"object\":\"%s\",\"model\":\"timed\",\"choices\":[],"
             "\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n"
             "data: [DONE]\n\n", word, kind, tokens, tokens + 1);
    last_len[chat] = as_chunk(last_chunk[chat], sizeof last_chunk[chat], body);
    memcpy(last_chunk[chat] + last_len[chat], "0\r\n\r\n", 5);
    last_len[chat] += 5;
}

static void say_truth(int fd) {
    size_t size = 256 + (size_t)requests * 96, length = 0;
    char *body = malloc(size), head[128];
    for (int i = 0; i < requests; i++)
        length += snprintf(body + length, size - length, "%lld %lld %lld %d\n",
                           (long long)truths[i].arrival, (long long)truths[i].first,
                           (long long)truths[i].last, truths[i].chunks);
    int head_len = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", length);
    put(fd, head, head_len);
    put(fd, body, length);
    free(body);
    requests = 0;
}

static void answer(int fd, conn_t *c, int64_t arrival) {
    c->have = c->need = 0;
    if (!strncmp(c->head, "GET /truth", 10)) { say_truth(fd); return; }
    if (!strncmp(c->head, "GET ", 4)) {
        const char *said = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        put(fd, said, strlen(said));
        return;
    }
    if (requests == MAX_REQUESTS) { close(fd); return; }
    char *line_end = strstr(c->head, "\r\n"), *chat = strstr(c->head, "/chat/");
    c->chat = chat && chat < line_end;
    c->active = 1;
    c->sent = 0;
    c->slot = requests++;
    truths[c->slot] = (truth_t){arrival, 0, 0, 0};
    push(arrival + first_ns, fd, c->slot);
}

static void take(int fd) {
    static char data[1 << 16];
    char control[256];
    struct iovec part = {data, sizeof data};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    conn_t *c = &conns[fd];
    if (got <= 0) { c->active = 0; close(fd); return; }
    int64_t at = now_ns();
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_TIMESTAMPING) {
            struct timespec *t = (struct timespec *)CMSG_DATA(h);
            if (t->tv_sec) at = t->tv_sec * 1000000000LL + t->tv_nsec;
        }
    if (c->need == 0) {
        size_t room = sizeof c->head - 1 - (c->have < sizeof c->head ? c->have : sizeof c->head - 1);
        size_t kept = (size_t)got < room ? (size_t)got : room;
        memcpy(c->head + c->have, data, kept);
        c->head[c->have + kept] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (end) {
            char *length = strcasestr(c->head, "content-length:");
            size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
            c->need = (size_t)(end - c->head) + 4 + body;
        }
    }
    c->have += got;
    if (c->need && c->have >= c->need) answer(fd, c, at);
}

static void serve_due(int64_t now) {
    while (heaped && heap[0].due <= now) {
        due_t next = pop();
        conn_t *c = &conns[next.fd];
        if (!c->active || c->slot != next.slot) continue; /* the client closed meanwhile */
        truth_t *t = &truths[c->slot];
        if (c->sent == 0) put(next.fd, HEAD, strlen(HEAD));
        int64_t at = now_ns();
        c->sent++;
        if (c->sent == tokens) put(next.fd, last_chunk[c->chat], last_len[c->chat]);
        else put(next.fd, chunk[c->chat], chunk_len[c->chat]);
        if (c->sent == 1) t->first = at;
        t->last = at;
        t->chunks = c->sent;
        if (c->sent == tokens) c->active = 0;
        else push(next.due + gap_ns, next.fd, next.slot);
        now = now_ns();
    }
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: timed_server PORT FIRST_MS GAP_MS TOKENS\n"); return 2; }
    first_ns = (int64_t)(atof(argv[2]) * 1e6);
    gap_ns = (int64_t)(atof(argv[3]) * 1e6);
    tokens = atoi(argv[4]);
    prepare(0);
    prepare(1);
    struct rlimit files = {MAX_FD, MAX_FD};
    setrlimit(RLIMIT_NOFILE, &files);
    int one = 1, stamps = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8192)) {
        perror("timed_server");
        return 1;
    }
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct timespec wait = {1, 0};
        if (heaped) {
            int64_t left = heap[0].due - now_ns() - SPIN_NS;
            if (left < 0) left = 0;
            wait = (struct timespec){left / 1000000000LL, left % 1000000000LL};
        }
        int ready = epoll_pwait2(poll, events, 512, &wait, NULL);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) { take(fd); continue; }
            int made = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (made < 0) continue;
            if (made >= MAX_FD) { close(made); continue; }
            setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            setsockopt(made, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps);
            memset(&conns[made], 0, sizeof(conn_t));
            event.data.fd = made;
            epoll_ctl(poll, EPOLL_CTL_ADD, made, &event);
        }
        serve_due(now_ns());
    }
}
