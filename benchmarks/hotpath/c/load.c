// Sends requests to one address and tells, as one line of JSON, what came back and how long it took (microseconds), and
// what the processes that it was told of used meanwhile. One thread, epoll, keep-alive.
//
//   load -p PORT [-u PATH] [-k KEY] [-m MODEL] [-c CONNECTIONS] [-o MS to open them in] [-w S to warm up] [-d S measured]
//        [-n ANSWERS after which it ends sooner]  [-r REQUESTS A SECOND]  a constant rate, timed from the moment at which each was due; else each connection sends
//                                its next request when it has its answer
//        [-b BYTES of prompt]  [-t TOKENS of a stream [-g MS between them] [-e WORDS that end it]]  [-s: TLS]
//        [-P PID,PID… whose processor time and memory are told]
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
static SSL_CTX *tls;
#else
typedef void SSL;
#endif

enum { TAIL = 24, HEAD = 4096 };

typedef struct {
    float *us; // each to a millionth of itself
    size_t n, cap;
} times;

typedef enum { CONNECTING, IDLE, ASKED, BODY } state;

typedef struct conn {
    int fd, wants_write, status, closes, chunked, tokens, ended;
    state state;
    SSL *tls;
    size_t written;    // of the request
    uint64_t began_ns; // or was due
    char *head;        // while it is not complete
    size_t head_n;
    int64_t left;  // of the body, or of its chunk; -1: to the end of the connection
    int in_size;   // chunked: 1 in a size line, 2 in the line end after a chunk, 3 behind the last chunk
    char tail[TAIL]; // what may be the beginning of a token or of the end
    size_t tail_n;
    struct conn *next_idle;
} conn;

static struct sockaddr_in there = {.sin_family = AF_INET};
static int poller, want_tokens, is_measuring, is_over, timer = -1;
static const char *end_words = "[DONE]";
static char *request;
static size_t request_n;
static conn *idle;
static double rate;
static uint64_t next_due_ns, last_answer_ns, longest_silence_ns, late;
static uint64_t answers, errors, incomplete, tokens, reads, connects;
static times latency, first, transit;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void note(times *t, uint64_t ns) {
    if (t->n == t->cap) t->us = realloc(t->us, (t->cap = t->cap ? 2 * t->cap : 1 << 16) * sizeof *t->us);
    t->us[t->n++] = ns / 1e3f;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void tell(const char *name, times *t) {
    const char *names[] = {"p50", "p90", "p99", "max"};
    double shares[] = {.5, .9, .99, 1};
    qsort(t->us, t->n, sizeof *t->us, compare);
    for (int i = 0; i < 4 && t->n; i++) printf("\"%s_%s_us\":%.1f,", name, names[i], t->us[(size_t)(shares[i] * (t->n - 1))]);
}

static void fault(const char *what, const char *detail, int n) {
    if (is_measuring && errors++ < 3) fprintf(stderr, "%s %.*s\n", what, n > 300 ? 300 : n, detail);
}

// ---- what the processes used ----

static double cpu_s(const char *pids) {
    double sum = 0;
    for (const char *at = pids; at && *at; at += strcspn(at, ","), at += *at == ',') {
        char path[40], text[1024], *name_ends;
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", atoi(at));
        FILE *f = fopen(path, "r");
        if (!f) continue;
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        if ((name_ends = strrchr(text, ')')))
            sscanf(name_ends + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
        sum += (double)(user + system) / sysconf(_SC_CLK_TCK);
    }
    return sum;
}

static double memory_mb(const char *pids, const char *field) {
    double kb, sum = 0;
    for (const char *at = pids; at && *at; at += strcspn(at, ","), at += *at == ',') {
        char path[40], line[200];
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", atoi(at));
        FILE *f = fopen(path, "r");
        while (f && fgets(line, sizeof line, f))
            if (!strncmp(line, field, strlen(field)) && sscanf(line + strlen(field), "%lf", &kb) == 1) sum += kb;
        if (f) fclose(f);
    }
    return sum / 1024;
}

// ---- one connection ----

static void watch(conn *c, int op, int also_write) {
    struct epoll_event e = {.events = EPOLLIN | (also_write ? EPOLLOUT : 0), .data.ptr = c};
    c->wants_write = also_write;
    epoll_ctl(poller, op, c->fd, &e);
}

static void dial(conn *c) {
    int one = 1;
    free(c->head);
    *c = (conn){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .state = CONNECTING};
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connect(c->fd, (void *)&there, sizeof there);
    connects++;
    watch(c, EPOLL_CTL_ADD, 1);
}

static void dial_again(conn *c) {
#ifdef WITH_TLS
    if (c->tls) SSL_free(c->tls);
#endif
    close(c->fd);
    dial(c);
}

// As recv and send: bytes, 0 at the end, -1 with EAGAIN or an error.
static ssize_t transfer(conn *c, void *bytes, size_t n, int sends) {
#ifdef WITH_TLS
    if (c->tls) {
        int done = sends ? SSL_write(c->tls, bytes, n > 1 << 20 ? 1 << 20 : (int)n) : SSL_read(c->tls, bytes, (int)n);
        if (done > 0) return done;
        int why = SSL_get_error(c->tls, done);
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
        return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
    }
#endif
    return sends ? send(c->fd, bytes, n, MSG_NOSIGNAL) : recv(c->fd, bytes, n, 0);
}

static void write_on(conn *c) {
    while (c->written < request_n) {
        ssize_t n = transfer(c, request + c->written, request_n - c->written, 1);
        if (n <= 0) break; // what has become of the connection is seen by the read
        c->written += n;
    }
    int waits = c->written < request_n;
    if (waits != c->wants_write) watch(c, EPOLL_CTL_MOD, waits);
}

static void ask(conn *c, uint64_t due_ns) {
    *c = (conn){.fd = c->fd, .tls = c->tls, .wants_write = c->wants_write, .state = ASKED, .left = -1, .began_ns = due_ns};
    write_on(c);
}

static void rest(conn *c) { // until there is something to ask
    uint64_t now = now_ns();
    c->state = IDLE;
    if (!rate && !is_over) return ask(c, now);
    if (rate && !is_over && next_due_ns <= now) {
        late++;
        ask(c, next_due_ns);
        next_due_ns += 1e9 / rate;
        return;
    }
    c->next_idle = idle;
    idle = c;
}

static void ask_what_is_due(void) {
    uint64_t now = now_ns(), step = 1e9 / rate;
    for (; idle && next_due_ns <= now && !is_over; next_due_ns += step) {
        conn *c = idle;
        idle = c->next_idle;
        ask(c, next_due_ns);
    }
    struct itimerspec at = {.it_value = {next_due_ns / 1000000000, next_due_ns % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void connected(conn *c) {
    int error = 0;
    socklen_t n = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) {
        fault("connecting:", strerror(error), 99);
        usleep(1000);
        return dial_again(c);
    }
#ifdef WITH_TLS
    if (tls && !c->tls) {
        SSL_set_fd(c->tls = SSL_new(tls), c->fd);
        SSL_set_connect_state(c->tls);
    }
    if (c->tls) {
        int done = SSL_do_handshake(c->tls), why = SSL_get_error(c->tls, done);
        if (done != 1) {
            if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) fault("TLS failed", "", 0), usleep(1000), dial_again(c);
            else if (c->wants_write != (why == SSL_ERROR_WANT_WRITE)) watch(c, EPOLL_CTL_MOD, why == SSL_ERROR_WANT_WRITE);
            return;
        }
    }
#endif
    watch(c, EPOLL_CTL_MOD, 0);
    rest(c);
}

static void answered(conn *c) {
    uint64_t now = now_ns();
    if (is_measuring && !is_over) {
        answers++;
        note(&latency, now - c->began_ns);
        if (c->status != 200) fault("status", c->head ? c->head : "", c->head ? (int)c->head_n : 0);
        else if (want_tokens && (c->tokens != want_tokens || !c->ended) && incomplete++ < 3)
            fprintf(stderr, "incomplete: %d tokens of %d, %s end\n", c->tokens, want_tokens, c->ended ? "with its" : "without an");
    }
    if (last_answer_ns && now - last_answer_ns > longest_silence_ns && is_measuring) longest_silence_ns = now - last_answer_ns;
    last_answer_ns = now;
    free(c->head);
    c->head = NULL;
    if (c->closes) dial_again(c);
    else rest(c);
}

static uint64_t moment(const char *digits) { // 16 of them; 0: these are none
    uint64_t ns = 0;
    for (int i = 0; i < 16; i++) {
        char d = digits[i];
        if (!((d >= '0' && d <= '9') || (d >= 'a' && d <= 'f'))) return 0;
        ns = ns << 4 | (d <= '9' ? d - '0' : d - 'a' + 10);
    }
    return ns;
}

// Tokens are found by their bytes, in whatever dialect, however they were cut on the way.
static void look_for_tokens(conn *c, const char *bytes, size_t n, uint64_t now) {
    static char text[TAIL + (1 << 16)];
    memcpy(text, c->tail, c->tail_n);
    memcpy(text + c->tail_n, bytes, n);
    char *at = text, *stop = text + c->tail_n + n, *t;
    for (; (t = memchr(at, 'T', stop - at)); ) {
        if (stop - t < 17) break;
        uint64_t sent = moment(t + 1);
        at = t + (sent ? 17 : 1);
        if (!sent) continue;
        if (is_measuring && !is_over) {
            tokens++;
            note(&transit, now > sent ? now - sent : 0);
            if (!c->tokens) note(&first, now - c->began_ns);
        }
        c->tokens++;
    }
    if (!t) t = stop;
    if (!c->ended && memmem(text, stop - text, end_words, strlen(end_words))) c->ended = 1;
    size_t keep = stop - t, some = strlen(end_words) - 1;
    // Behind the last token only, or it would be counted again.
    if (keep < some) keep = some < (size_t)(stop - at) ? some : (size_t)(stop - at);
    c->tail_n = keep;
    memcpy(c->tail, stop - keep, keep);
}

static size_t take_head(conn *c, const char *bytes, size_t n) { // how many bytes of these belong to it
    size_t had = c->head_n, room = HEAD - 1 - had;
    if (!c->head) c->head = malloc(HEAD);
    if (n > room) n = room;
    memcpy(c->head + had, bytes, n);
    c->head[c->head_n += n] = 0;
    char *stop = strstr(c->head, "\r\n\r\n");
    if (!stop) return n;
    n = stop + 4 - c->head - had;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->chunked = length > stop || !length ? !!strcasestr(c->head, "\r\ntransfer-encoding: chunked") : 0;
    c->closes = !!strcasestr(c->head, "\r\nconnection: close");
    c->status = atoi(c->head + 9);
    c->left = c->chunked ? 0 : length ? strtoll(length + 17, NULL, 10) : -1;
    c->in_size = c->chunked;
    c->state = BODY;
    if (c->status == 200) free(c->head), c->head = NULL;
    return n;
}

// Goes on with the body; 1 when the answer is complete.
static int take_body(conn *c, const char *at, const char *stop, uint64_t now) {
    while (at < stop) {
        if (c->in_size) {
            char ch = *at++;
            if (c->in_size == 1 && ch != '\r' && ch != '\n') c->left = c->left * 16 + (ch <= '9' ? ch - '0' : (ch | 32) - 'a' + 10);
            if (ch != '\n') continue;
            if (c->in_size == 3) return 1;
            if (c->in_size == 2) c->in_size = 1, c->left = 0;
            else c->in_size = c->left ? 0 : 3;
            continue;
        }
        int64_t n = stop - at;
        if (c->left >= 0 && n > c->left) n = c->left;
        if (want_tokens) look_for_tokens(c, at, n, now);
        at += n;
        if (c->left >= 0 && !(c->left -= n)) {
            if (!c->chunked) return 1;
            c->in_size = 2;
        }
    }
    return 0;
}

static void readable(conn *c) {
    static char bytes[1 << 16];
    for (;;) {
        ssize_t n = transfer(c, bytes, sizeof bytes, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            if (c->state == BODY && n == 0 && c->left < 0 && !c->chunked) return c->closes = 1, answered(c);
            if (c->state != IDLE && !is_over) fault("the connection ended", strerror(errno), n < 0 ? 99 : 0);
            for (conn **i = &idle; c->state == IDLE && *i; i = &(*i)->next_idle)
                if (*i == c) { *i = c->next_idle; break; }
            return dial_again(c);
        }
        uint64_t now = now_ns();
        if (is_measuring) reads++;
        size_t at = 0;
        if (c->state == ASKED) at = take_head(c, bytes, n);
        if (c->state == BODY && ((!c->chunked && c->left == 0) || take_body(c, bytes + at, bytes + n, now))) return answered(c);
        if (n < (ssize_t)sizeof bytes && !c->tls) return;
    }
}

// ---- the whole ----

static void write_request(const char *path, const char *key, const char *model, int prompt, int gap_ms) {
    char pace[40] = "", *filler = malloc(prompt + 1), *body;
    if (want_tokens) snprintf(pace, sizeof pace, "@%dx%d ", gap_ms, want_tokens);
    for (int i = 0; i < prompt; i++) filler[i] = "many words without a meaning "[i % 29];
    filler[prompt] = 0;
    int n = asprintf(&body,
                     "{\"model\":\"%s\",\"max_tokens\":%d,\"temperature\":0.7,\"stream\":%s,\"messages\":[{\"role\":\"user\","
                     "\"content\":\"%s%s\"}]}",
                     model, want_tokens ? want_tokens : 64, want_tokens ? "true" : "false", pace, filler);
    int head = asprintf(&request,
                        "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nuser-agent: bench\r\naccept: */*\r\n"
                        "content-type: application/json\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n",
                        path, ntohs(there.sin_port), key, n);
    request = realloc(request, request_n = head + n);
    memcpy(request + head, body, n);
    free(body);
    free(filler);
}

int main(int argc, char **argv) {
    const char *path = "/v1/chat/completions", *key = "none", *model = "mock", *pids = NULL;
    int conns = 1, prompt = 120, gap_ms = 0, uses_tls = 0, port = 0;
    uint64_t most = UINT64_MAX;
    double open_ms = 0, warm_s = 1, measured_s = 3;
    for (int o; (o = getopt(argc, argv, "p:u:k:m:c:o:w:d:n:r:b:t:g:e:sP:")) > 0;) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'k': key = optarg; break;
        case 'm': model = optarg; break;
        case 'c': conns = atoi(optarg); break;
        case 'o': open_ms = atof(optarg); break;
        case 'w': warm_s = atof(optarg); break;
        case 'd': measured_s = atof(optarg); break;
        case 'n': most = strtoul(optarg, NULL, 10); break;
        case 'r': rate = atof(optarg); break;
        case 'b': prompt = atoi(optarg); break;
        case 't': want_tokens = atoi(optarg); break;
        case 'g': gap_ms = atoi(optarg); break;
        case 'e': end_words = optarg; break;
        case 's': uses_tls = 1; break;
        case 'P': pids = optarg; break;
        default: return 2;
    }
    if (!port || strlen(end_words) > TAIL) return fprintf(stderr, "see the head of load.c\n"), 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    there.sin_port = htons(port);
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
#ifdef WITH_TLS
    if (uses_tls) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
#else
    if (uses_tls) return fprintf(stderr, "built without OpenSSL's headers: no TLS\n"), 3;
#endif
    write_request(path, key, model, prompt, gap_ms);
    poller = epoll_create1(0);
    conn *all = calloc(conns, sizeof *all);
    uint64_t began = now_ns(), from = began + (uint64_t)(open_ms * 1e6 + warm_s * 1e9), until = from + (uint64_t)(measured_s * 1e9), stop;
    if (rate) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLET};
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        epoll_ctl(poller, EPOLL_CTL_ADD, timer, &e);
        next_due_ns = began + (uint64_t)(open_ms * 1e6) + 100000000;
    }
    double used = 0, own = 0;
    struct rusage self;
    for (int open = 0;;) {
        uint64_t now = now_ns();
        if (now >= until || answers >= most) break;
        int due = open_ms ? (int)((now - began) / 1e6 * conns / open_ms) + 1 : conns;
        for (int burst = 0; burst < 64 && open < due && open < conns; burst++) dial(&all[open++]);
        if (!is_measuring && now >= from) {
            if (open < conns) return fprintf(stderr, "only %d of %d connections were opened in time\n", open, conns), 1;
            is_measuring = 1;
            last_answer_ns = from = now_ns();
            until = from + (uint64_t)(measured_s * 1e9);
            used = cpu_s(pids);
            getrusage(RUSAGE_SELF, &self);
            own = self.ru_utime.tv_sec + self.ru_stime.tv_sec + (self.ru_utime.tv_usec + self.ru_stime.tv_usec) / 1e6;
        }
        if (rate) ask_what_is_due();
        struct epoll_event ready[512];
        int n = epoll_wait(poller, ready, 512, open < conns ? 1 : 20);
        for (int i = 0; i < n; i++) {
            conn *c = ready[i].data.ptr;
            if (!c) continue; // the timer
            if (c->state == CONNECTING) { connected(c); continue; }
            if (c->wants_write && ready[i].events & EPOLLOUT) write_on(c);
            if (ready[i].events & ~EPOLLOUT) readable(c);
        }
    }
    stop = now_ns();
    used = cpu_s(pids) - used;
    getrusage(RUSAGE_SELF, &self);
    own = self.ru_utime.tv_sec + self.ru_stime.tv_sec + (self.ru_utime.tv_usec + self.ru_stime.tv_usec) / 1e6 - own;
    if (stop - last_answer_ns > longest_silence_ns) longest_silence_ns = stop - last_answer_ns;
    double rss = memory_mb(pids, "Rss:"), pss = memory_mb(pids, "Pss:"), seconds = (stop - from) / 1e9;
    is_over = 1;
    printf("{\"seconds\":%.3f,\"answers\":%lu,\"errors\":%lu,\"incomplete\":%lu,\"tokens\":%lu,\"reads\":%lu,", seconds, answers, errors,
           incomplete, tokens, reads);
    if (rate) printf("\"late\":%lu,\"behind_s\":%.3f,", late, stop > next_due_ns ? (stop - next_due_ns) / 1e9 : 0);
    tell("latency", &latency);
    tell("first", &first);
    tell("transit", &transit);
    printf("\"connects\":%lu,\"longest_silence_ms\":%.1f,\"cpu_s\":%.2f,\"rss_mb\":%.1f,\"pss_mb\":%.1f,\"own_cpu_s\":%.3f}\n", connects,
           longest_silence_ns / 1e6, used, rss, pss, own);
    return 0;
}
