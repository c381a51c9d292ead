// The trial process: see trial.h, and trial_linux.go for its other side.
//
// It is the same executable, run again: a constructor takes it over before Go's
// runtime starts. That makes it a process of one thread, which may fork, of
// some megabytes, that starts in milliseconds, in a test and in an image
// without other files alike.
#define _GNU_SOURCE
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "grammar.h"

static LlgTokenizer *trie;
static uint32_t vocab, quote;  // quote: the token of a quotation mark, or vocab
static uint32_t *of_byte;      // the token of a byte, or vocab

static int read_all(int fd, void *p, size_t n) {
  for (char *at = p; n > 0;) {
    ssize_t got = read(fd, at, n);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 0;
    at += got;
    n -= got;
  }
  return 1;
}

static void write_all(int fd, const void *p, size_t n) {
  for (const char *at = p; n > 0;) {
    ssize_t put = send(fd, at, n, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return;
    at += put;
    n -= put;
  }
}

static void *must(void *p) {
  if (!p) _exit(1);
  return p;
}

// tokenize cuts a text into bytes. It must be some way that the grammar allows,
// not the model's; a byte without a token of its own is left out.
static size_t tokenize(const void *user, const uint8_t *text, size_t len, uint32_t *out, size_t out_len) {
  (void)user;
  size_t n = 0;
  for (size_t i = 0; i < len; i++) {
    uint32_t token = of_byte[text[i]];
    if (token == vocab) continue;
    if (n < out_len) out[n] = token;
    n++;
  }
  return n;
}

static void read_vocabulary(void) {
  trial_vocabulary v;
  if (!read_all(0, &v, sizeof v) || v.eos_count == 0) _exit(1);
  vocab = v.tokens;
  uint32_t *lens = must(calloc(v.tokens + 1, sizeof *lens)), *eos = must(calloc(v.eos_count, sizeof *eos));
  uint8_t *bytes = must(malloc(v.bytes + 1));
  if (!read_all(0, lens, v.tokens * sizeof *lens) || !read_all(0, bytes, v.bytes) ||
      !read_all(0, eos, v.eos_count * sizeof *eos))
    _exit(1);
  of_byte = must(malloc(256 * sizeof *of_byte));
  for (int i = 0; i < 256; i++) of_byte[i] = vocab;
  const uint8_t *at = bytes;
  for (uint32_t id = 0; id < vocab; at += lens[id++])
    if (lens[id] == 1 && *at != 0xFF) of_byte[*at] = id;
  quote = of_byte['"'];
  char error[8];
  trie = must(mr_new_trie(lens, bytes, vocab, eos, v.eos_count, tokenize, NULL, error, sizeof error));
  // What the trie makes when it is first used, all trials share.
  LlgConstraintInit init;
  llg_constraint_init_set_defaults(&init, trie);
  init.log_stderr_level = 0;
  llg_free_matcher(llg_new_matcher(&init, "regex", "a"));
  free(lens);
  free(bytes);
  free(eos);
  malloc_trim(0);
}

static size_t allocated(void) { return mallinfo2().uordblks; }

// memory tells the size of the process and how much of it is there, in bytes.
static int memory(size_t *size, size_t *resident) {
  *size = *resident = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  if (!f) return 0;
  int n = fscanf(f, "%zu %zu", size, resident);
  fclose(f);
  size_t page = sysconf(_SC_PAGESIZE);
  *size *= page;
  *resident *= page;
  return n == 2;
}

static uint64_t cpu_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static uint64_t wall_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

typedef struct {
  trial_request request;
  char *kind, *text;
  trial_answer answer;
  char message[TRIAL_MESSAGE];
  volatile pid_t thread;
  sem_t done;
} trial;

static void fail(trial *t, int status, LlgMatcher *m) {
  t->answer.status = status;
  const char *reason = m ? llg_matcher_get_error(m) : NULL;
  if (!reason) reason = "the grammar library failed without a reason";
  t->answer.message_len = strnlen(reason, TRIAL_MESSAGE);
  memcpy(t->message, reason, t->answer.message_len);
}

// draw returns a token of mask: every second time the quotation mark, which
// leads out of strings, otherwise any. vocab if there is none.
static uint32_t draw(const uint32_t *mask, uint64_t *state) {
  uint64_t r = *state = *state * 6364136223846793005u + 1442695040888963407u;
  r >>= 33;
  if ((r & 1) && quote < vocab && mask[quote / 32] >> quote % 32 & 1) return quote;
  uint32_t words = (vocab + 31) / 32, n = 0;
  for (uint32_t w = 0; w < words; w++) n += __builtin_popcount(mask[w]);
  if (n == 0) return vocab;
  uint32_t k = (r >> 1) % n;
  for (uint32_t w = 0; w < words; w++) {
    uint32_t word = mask[w], here = __builtin_popcount(word);
    if (k >= here) {
      k -= here;
      continue;
    }
    for (; k > 0; k--) word &= word - 1;
    return 32 * w + __builtin_ctz(word);
  }
  return vocab;
}

// walk follows one text of the grammar and reports whether all limits hold.
static int walk(trial *t, LlgMatcher *m, uint32_t *mask) {
  uint32_t words = (vocab + 31) / 32;
  size_t room = t->request.text_len + 1024;
  uint32_t *forced = must(malloc(room * sizeof *forced));
  uint64_t random = 1;
  for (uint64_t step = 0; step < t->request.steps && !llg_matcher_is_stopped(m); step++) {
    int32_t n = llg_matcher_compute_ff_tokens(m, forced, room);
    if (n < 0) return 0;
    for (int32_t i = 0; i < n && i < (int32_t)room; i++)
      if (llg_matcher_consume_token(m, forced[i]) < 0) return 0;
    if (n > 0) continue;
    if (llg_matcher_compute_mask_into(m, mask, words * sizeof *mask) < 0) return 0;
    uint32_t token = draw(mask, &random);
    if (token == vocab) break;
    if (llg_matcher_consume_token(m, token) < 0) return 0;
  }
  free(forced);
  return !llg_matcher_get_error(m);
}

static void *compile_and_walk(void *arg) {
  trial *t = arg;
  t->thread = syscall(SYS_gettid);
  setpriority(PRIO_PROCESS, t->thread, (int)t->request.nice);
  LlgConstraintInit init;
  llg_constraint_init_set_defaults(&init, trie);
  init.log_stderr_level = 0;
  init.limits.verbose_errors = false;
#define SET(to, from) \
  if (t->request.from) init.limits.to = t->request.from
  SET(max_items_in_row, items_in_row);
  SET(initial_lexer_fuel, initial_fuel);
  SET(step_lexer_fuel, step_fuel);
  SET(step_max_items, step_items);
  SET(max_lexer_states, lexer_states);
  SET(max_grammar_size, grammar_size);
#undef SET
  size_t words = (vocab + 31) / 32, before = allocated(), heap = mallinfo2().arena, size, there, now;
  memory(&size, &there);
  uint32_t *mask = must(malloc(words * sizeof *mask));
  LlgMatcher *m = llg_new_matcher(&init, t->kind, t->text);
  if (!m || llg_matcher_get_error(m)) {
    fail(t, TRIAL_REFUSED, m);
  } else if (llg_matcher_compute_mask_into(m, mask, words * sizeof *mask) < 0) {
    fail(t, TRIAL_NO_MASK, m);
  } else {
    t->answer.cpu_us = cpu_us();
    size_t after = allocated();
    t->answer.bytes = after - before;
    // Large arrays are not full: what was never touched takes no memory.
    if (t->answer.bytes > 1 << 20 && memory(&size, &now) && now > there && now - there < t->answer.bytes)
      t->answer.bytes = now - there;
    t->answer.clone_bytes = t->answer.bytes;
    if (t->answer.bytes < 4 << 20) {  // of a large one, nearly all is cloned
      LlgMatcher *clone = llg_clone_matcher(m);
      t->answer.clone_bytes = allocated() - after;
      llg_free_matcher(clone);
    }
    if (!walk(t, m, mask)) fail(t, TRIAL_NO_WALK, m);
  }
  t->answer.peak = mallinfo2().arena - heap;
  sem_post(&t->done);
  return NULL;
}

// limit_memory allows the process so much more than it has.
static void limit_memory(uint64_t more) {
  size_t size, resident;
  if (!memory(&size, &resident)) return;
  struct rlimit r = {size + more, size + more};
  setrlimit(RLIMIT_AS, &r);
}

static int other_end;

// hang_up ends the process when the server has closed its end. SIGIO also comes
// for what the server has sent: its writer may signal after the text was read.
static void hang_up(int signal) {
  (void)signal;
  int before = errno;
  char c;
  if (recv(other_end, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0) _exit(0);
  errno = before;
}

// one serves one request in a process of its own.
static void one(int fd) {
  trial *t = must(calloc(1, sizeof *t));
  write_all(fd, "", 1);
  if (!read_all(fd, &t->request, sizeof t->request)) return;
  t->kind = must(calloc(t->request.kind_len + 1, 1));
  t->text = must(calloc(t->request.text_len + 1, 1));
  if (!read_all(fd, t->kind, t->request.kind_len) || !read_all(fd, t->text, t->request.text_len)) return;

  // From here on the other end has nothing more to say but to hang up.
  other_end = fd;
  struct sigaction action = {.sa_handler = hang_up, .sa_flags = SA_RESTART};
  sigaction(SIGIO, &action, NULL);
  fcntl(fd, F_SETOWN, getpid());
  fcntl(fd, F_SETFL, O_ASYNC);
  hang_up(SIGIO);

  uint64_t wall = wall_us(), cpu = cpu_us();
  limit_memory(t->request.memory + MR_COMPILE_STACK);
  sem_init(&t->done, 0, 0);
  pthread_attr_t attr;
  pthread_t thread;
  pthread_attr_init(&attr);
  if (pthread_attr_setstacksize(&attr, MR_COMPILE_STACK) || pthread_create(&thread, &attr, compile_and_walk, t)) {
    t->answer.status = TRIAL_BUSY;
    write_all(fd, &t->answer, sizeof t->answer);
    return;
  }
  int quick = 1;
  for (;;) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 10 * 1000 * 1000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    if (sem_timedwait(&t->done, &until) == 0) break;
    uint64_t took = wall_us() - wall, used = cpu_us() - cpu;
    if (used > t->request.cpu_us || took > t->request.wall_us) {
      memset(&t->answer, 0, sizeof t->answer);
      // On a busy machine a part of the processor time proves nothing.
      t->answer.status = used > t->request.cpu_us / 2 ? TRIAL_LATE : TRIAL_BUSY;
      break;
    }
    if (quick && used > t->request.quick_us) {
      trial_answer slow = {.status = TRIAL_SLOW};
      write_all(fd, &slow, sizeof slow);
      setpriority(PRIO_PROCESS, t->thread, (int)t->request.slow_nice);
      quick = 0;
    }
  }
  if (t->answer.cpu_us > cpu) t->answer.cpu_us -= cpu;
  signal(SIGIO, SIG_IGN);
  write_all(fd, &t->answer, sizeof t->answer);
  write_all(fd, t->message, t->answer.message_len);
}

// receive waits for a descriptor: -1 when there is none, -2 when there will be none.
static int receive(void) {
  char byte;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec data = {&byte, 1};
  struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t n = recvmsg(0, &m, MSG_CMSG_CLOEXEC);
  if (n < 0 && errno == EINTR) return -1;
  if (n <= 0) return -2;
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  if (!c || c->cmsg_type != SCM_RIGHTS) return -1;
  int fd;
  memcpy(&fd, CMSG_DATA(c), sizeof fd);
  return fd;
}

// shed gives up all that the server has and a trial does not need.
static void shed(void) {
#ifdef SYS_close_range
  if (syscall(SYS_close_range, 1, ~0u, 0) != 0)
#endif
    for (int fd = 1; fd < 65536; fd++) close(fd);
  // What the library prints goes to a pipe that nobody reads.
  int p[2];
  if (pipe(p) == 0) {
    int end = dup2(p[1], 9);
    close(p[0]);
    close(p[1]);
    dup2(end, 1);
    dup2(end, 2);
    close(end);
  }
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  prctl(PR_SET_NAME, "grammar-trial");
  sigset_t mask;
  sigemptyset(&mask);
  sigprocmask(SIG_SETMASK, &mask, NULL);
  signal(SIGIO, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_IGN);  // ended children need no wait
  // Where memory is short, the kernel shall take this process and not the server.
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd >= 0) {
    if (write(fd, "1000", 4) < 0) {
    }
    close(fd);
  }
}

__attribute__((constructor)) static void trial_process(int argc, char **argv) {
  if (argc < 1 || strcmp(argv[0], MR_TRIAL_NAME) != 0) return;
  shed();
  mallopt(M_ARENA_MAX, 1);
  // All memory in one heap that never shrinks: then its size is the peak.
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  read_vocabulary();
  for (int fd; (fd = receive()) != -2;) {
    if (fd < 0) continue;
    if (fork() == 0) {
      close(0);
      one(fd);
      _exit(0);
    }
    close(fd);
  }
  while (wait(NULL) > 0 || errno == EINTR) {
  }
  _exit(0);
}
