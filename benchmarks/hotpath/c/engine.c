// An engine that costs next to nothing: one thread, epoll, keep-alive. It speaks OpenAI's chat completions, Anthropic's
// messages and Ollama's chat, by path.
//
//   engine PORT [MODEL]
//
// A prompt says how its stream is paced: "@GAPxTOKENS " (milliseconds between tokens; 0: all at once), which survives any
// translation on the way. Without it a stream has 64 tokens at once. A token's text is "T" and the moment of its sending,
// CLOCK_MONOTONIC in nanoseconds as 16 hexadecimal digits, so that the generator knows how long it travelled.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

enum { TURN = 1 << 14, USUAL_TOKENS = 64, LOOK_FOR_WISHES_IN = 1 << 16 }; // TURN: longest gap, in milliseconds

// What one dialect writes: a token is `before`, its text, `after`.
typedef struct {
    const char *path, *type, *first, *before, *after, *last, *usage, *end, *plain;
} dialect;

#define OPENAI "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1763000000,\"model\":\"mock\","
#define COUNTS "\"usage\":{\"prompt_tokens\":24,\"completion_tokens\":64,\"total_tokens\":88}"
#define SENTENCES \
    "A load balancer spreads incoming requests across several servers so that none of them is overwhelmed. For language " \
    "models it also looks at how long the queues are, which models are loaded and how much memory is free, since one long " \
    "answer can occupy a worker for many seconds. A good one sends a request elsewhere when its first choice is silent."

static const dialect dialects[] = {
    {"/v1/messages", "text/event-stream",
     "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":"
     "\"assistant\",\"model\":\"mock\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":"
     "24,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
     "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
     "\"text\":\"",
     "\"}}\n\n",
     "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":"
     "\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":64}}\n\n",
     "", "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
     "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"mock\",\"content\":[{\"type\":\"text\",\"text\":\""
     SENTENCES "\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":24,\"output_tokens\":64}}"},
    {"/api/chat", "application/x-ndjson", "",
     "{\"model\":\"mock\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"",
     "\"},\"done\":false}\n",
     "{\"model\":\"mock\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},"
     "\"done\":true,\"done_reason\":\"stop\",\"total_duration\":1,\"load_duration\":1,\"prompt_eval_count\":24,"
     "\"prompt_eval_duration\":1,\"eval_count\":64,\"eval_duration\":1}\n",
     "", "",
     "{\"model\":\"mock\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"" SENTENCES
     "\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":1,\"load_duration\":1,\"prompt_eval_count\":24,"
     "\"prompt_eval_duration\":1,\"eval_count\":64,\"eval_duration\":1}"},
    {"", "text/event-stream",
     OPENAI "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
     OPENAI "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
     OPENAI "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n",
     OPENAI "\"choices\":[]," COUNTS "}\n\n", "data: [DONE]\n\n",
     "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1763000000,\"model\":\"mock\",\"choices\":[{\"index\":0,"
     "\"message\":{\"role\":\"assistant\",\"content\":\"" SENTENCES "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}]," COUNTS
     "}"},
};

// Asked of an engine by those who look after it: one answer that every one of them understands.
static const char about_form[] =
    "{\"object\":\"list\",\"has_more\":false,\"data\":[{\"id\":\"%1$s\",\"object\":\"model\",\"type\":\"model\",\"created\":"
    "1700000000,\"owned_by\":\"bench\",\"max_model_len\":1048576}],\"models\":[{\"name\":\"%1$s\",\"model\":\"%1$s\"}],\"status\":"
    "\"ok\",\"model_path\":\"%1$s\",\"served_model_name\":\"%1$s\",\"is_generation\":true,\"version\":\"0.30.0\"}";
static char about[1024];

typedef struct conn {
    int fd, listens, wants_write;
    char *in, *out;
    size_t in_n, in_cap, out_at, out_n, out_cap;
    const dialect *speaks; // while a stream runs
    int gap_ms, left, tells_usage;
    struct conn *before, *after; // in the turn of the wheel in which its next token is due
    int due;                     // -1: nowhere
} conn;

static int poller;
static conn *wheel[TURN];
static uint64_t turned_to_ms;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void must(int holds, const char *what) {
    if (holds) return;
    perror(what);
    exit(1);
}

static void schedule(conn *c, uint64_t at_ms) {
    int due = (at_ms > turned_to_ms ? at_ms : turned_to_ms + 1) % TURN;
    c->due = due;
    c->before = NULL;
    if ((c->after = wheel[due])) c->after->before = c;
    wheel[due] = c;
}

static void unschedule(conn *c) {
    if (c->due < 0) return;
    if (c->before) c->before->after = c->after;
    else wheel[c->due] = c->after;
    if (c->after) c->after->before = c->before;
    c->due = -1;
}

static void watch(conn *c, int op) {
    struct epoll_event e = {.events = EPOLLIN | (c->wants_write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, op, c->fd, &e);
}

static conn *adopt(int fd, int listens) {
    conn *c = calloc(1, sizeof *c);
    *c = (conn){.fd = fd, .listens = listens, .due = -1};
    watch(c, EPOLL_CTL_ADD);
    return c;
}

static void end(conn *c) {
    unschedule(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

// ---- writing: gathered in c->out, sent by flush ----

static void put(conn *c, const char *bytes, size_t n) {
    if (c->out_n + n > c->out_cap) must(!!(c->out = realloc(c->out, c->out_cap = 2 * (c->out_n + n))), "memory");
    memcpy(c->out + c->out_n, bytes, n);
    c->out_n += n;
}

static void put_text(conn *c, const char *text) { put(c, text, strlen(text)); }

static int flush(conn *c) { // 0: the client has gone
    while (c->out_at < c->out_n) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_n - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return 0;
        if (n < 0) break;
        c->out_at += n;
    }
    int waits = c->out_at < c->out_n;
    if (!waits) {
        c->out_at = c->out_n = 0;
        if (c->due < 0 || c->out_cap > 4096) c->out_cap = 0, free(c->out), c->out = NULL; // 10,000 of them stay small
    }
    if (waits != c->wants_write) {
        c->wants_write = waits;
        watch(c, EPOLL_CTL_MOD);
    }
    return 1;
}

static void put_whole(conn *c, const char *type, const char *body) {
    char head[160];
    int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", type, strlen(body));
    put(c, head, n);
    put_text(c, body);
}

static void put_piece(conn *c, const char *parts[], int n) { // one chunk of HTTP's
    char size[16];
    size_t sum = 0;
    for (int i = 0; i < n; i++) sum += strlen(parts[i]);
    put(c, size, sprintf(size, "%zx\r\n", sum));
    for (int i = 0; i < n; i++) put_text(c, parts[i]);
    put_text(c, "\r\n");
}

static void put_token(conn *c) {
    char text[24];
    sprintf(text, "T%016llx", (unsigned long long)now_ns());
    put_piece(c, (const char *[]){c->speaks->before, text, c->speaks->after}, 3);
    c->left--;
}

static void put_end(conn *c) {
    put_piece(c, (const char *[]){c->speaks->last, c->tells_usage ? c->speaks->usage : "", c->speaks->end}, 3);
    put_text(c, "0\r\n\r\n");
    c->speaks = NULL;
}

// ---- reading ----

// Where the value of a key begins, with whatever spaces the writer liked. NULL: the key is not there.
static const char *value_of(const char *key, const char *body, size_t n) {
    const char *at = memmem(body, n, key, strlen(key)), *stop = body + n;
    if (!at) return NULL;
    for (at += strlen(key); at < stop && (*at == ' ' || *at == ':'); at++) {}
    return at < stop ? at : NULL;
}

static int says_true(const char *key, const char *body, size_t n) {
    // Wishes stand before the messages or after them, and messages may be long.
    size_t look = n < LOOK_FOR_WISHES_IN ? n : LOOK_FOR_WISHES_IN;
    const char *told = value_of(key, body, look);
    if (!told) told = value_of(key, body + n - look, look);
    return told && *told == 't';
}

static void answer(conn *c, const char *head, const char *body, size_t n) {
    if (memcmp(head, "POST ", 5) || !strncmp(head + 5, "/api/show", 9)) return put_whole(c, "application/json", about);
    const dialect *d = dialects;
    while (strncmp(head + 5, d->path, strlen(d->path))) d++;
    const char *wish = memmem(body, n < LOOK_FOR_WISHES_IN ? n : LOOK_FOR_WISHES_IN, "\"@", 2);
    if (!says_true("\"stream\"", body, n)) return put_whole(c, "application/json", d->plain);
    c->gap_ms = 0;
    c->left = USUAL_TOKENS;
    if (wish) sscanf(wish + 2, "%dx%d", &c->gap_ms, &c->left);
    if (c->gap_ms >= TURN) c->gap_ms = TURN - 1;
    c->tells_usage = says_true("\"include_usage\"", body, n);
    c->speaks = d;
    put_text(c, "HTTP/1.1 200 OK\r\ncontent-type: ");
    put_text(c, d->type);
    put_text(c, "\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    if (*d->first) put_piece(c, (const char *[]){d->first}, 1);
    if (c->left > 0) put_token(c);
    if (c->gap_ms) return schedule(c, now_ns() / 1000000 + c->gap_ms);
    while (c->left > 0) put_token(c);
    put_end(c);
}

// Goes over the chunks that lie at `at`, and puts their bytes together at `to` (NULL: only looks). Returns where they end;
// NULL: more is to come.
static char *join_chunks(char *at, char *stop, char *to, size_t *n) {
    for (*n = 0;;) {
        char *line = memmem(at, stop - at, "\r\n", 2);
        if (!line) return NULL;
        size_t size = strtoul(at, NULL, 16);
        if ((size_t)(stop - line) < size + 4) return NULL;
        if (to) memmove(to + *n, line + 2, size);
        *n += size;
        at = line + 2 + size + 2;
        if (!size) return at;
    }
}

static void take_requests(conn *c) {
    size_t at = 0;
    while (!c->speaks && at < c->in_n) {
        char *head = c->in + at, *stop = c->in + c->in_n, *body = memmem(head, stop - head, "\r\n\r\n", 4), *next;
        if (!body) break;
        *body = 0;
        const char *told = strcasestr(head, "\r\ncontent-length:");
        int in_chunks = !told && strcasestr(head, "\r\ntransfer-encoding: chunked");
        int asks_first = !!strcasestr(head, "\r\nexpect: 100-continue");
        size_t n = told ? strtoul(told + 17, NULL, 10) : 0;
        *body = '\r';
        body += 4;
        if (in_chunks ? !(next = join_chunks(body, stop, NULL, &n)) : (next = body + n) > stop) {
            if (asks_first && body == stop) put_text(c, "HTTP/1.1 100 Continue\r\n\r\n");
            break;
        }
        if (in_chunks) join_chunks(body, stop, body, &n);
        answer(c, head, body, n);
        at = next - c->in;
    }
    memmove(c->in, c->in + at, c->in_n -= at);
    if (!c->in_n) free(c->in), c->in = NULL, c->in_cap = 0;
}

static int readable(conn *c) { // 0: the client has gone
    for (;;) {
        if (c->in_cap - c->in_n < 4096) must(!!(c->in = realloc(c->in, c->in_cap = c->in_cap ? 2 * c->in_cap : 16384)), "memory");
        ssize_t n = recv(c->fd, c->in + c->in_n, c->in_cap - c->in_n - 1, 0);
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) return 0;
        c->in_n += n;
        c->in[c->in_n] = 0;
        if (c->in_n + 1 < c->in_cap) break;
    }
    if (c->in_n) take_requests(c);
    return flush(c);
}

static void send_due(void) {
    for (uint64_t now_ms = now_ns() / 1000000; turned_to_ms < now_ms;) {
        conn *c = wheel[++turned_to_ms % TURN], *next;
        wheel[turned_to_ms % TURN] = NULL;
        for (; c; c = next) {
            next = c->after;
            c->due = -1;
            if (c->left > 0) {
                put_token(c);
                schedule(c, turned_to_ms + c->gap_ms);
            } else {
                put_end(c);
                take_requests(c);
            }
            if (!flush(c)) end(c);
        }
    }
}

int main(int argc, char **argv) {
    struct rlimit files;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event ready[512];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (argc < 2) return fprintf(stderr, "engine PORT [MODEL]\n"), 2;
    snprintf(about, sizeof about, about_form, argc > 2 ? argv[2] : "mock");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    here.sin_port = htons(atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    must(!bind(listener, (void *)&here, sizeof here) && !listen(listener, 16384), argv[1]);
    poller = epoll_create1(0);
    adopt(listener, 1);
    for (turned_to_ms = now_ns() / 1000000;; send_due()) {
        int n = epoll_wait(poller, ready, 512, 1);
        for (int i = 0; i < n; i++) {
            conn *c = ready[i].data.ptr;
            if (!c->listens) {
                if (!(ready[i].events & EPOLLIN ? readable(c) : ready[i].events & EPOLLOUT ? flush(c) : 0)) end(c);
                continue;
            }
            for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0; adopt(fd, 0))
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        }
    }
}
