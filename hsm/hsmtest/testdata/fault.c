/* A PKCS#11 module that passes every call on to another one, counts it, and
 * spoils one call once. Tests compile it with
 *   -DREAL="/path/of/module" -DCONF="/path/of/softhsm2.conf" -DCONTROL="/path"
 * where CONTROL is a file of struct control; it is shared by all processes that
 * load this module, so the n-th call is counted over all of them. It knows no
 * call's arguments: all are words, at most eight (PKCS#11 v2.40, 5.1). */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define FUNCTIONS 68
#define CKR_GENERAL_ERROR 0x5UL

struct control {
  uint32_t calls[FUNCTIONS]; /* so far, by the place in CK_FUNCTION_LIST */
  uint32_t target, nth, action, done;
  uint32_t code; /* what FAIL and LOSE answer */
};
enum { NOTHING, FAIL, LOSE, HANG, CRASH, DIE, CROWD, FINALIZE };
enum { C_FINALIZE = 1, C_OPEN_SESSION = 12, SESSIONS = 5000, LOAD = 2000 };

typedef unsigned long W;
typedef W (*function)(W, W, W, W, W, W, W, W);
struct list {
  unsigned char version[2];
  function f[FUNCTIONS];
};

static struct list *real, mine;
static struct control *control;

/* crowd opens SESSIONS more sessions on the slot of this C_OpenSession. */
static W crowd(W slot, W flags) {
  W h, r = 0;
  for (int n = 0; n < SESSIONS && r == 0; n++) r = real->f[C_OPEN_SESSION](slot, flags, 0, 0, (W)&h, 0, 0, 0);
  return r;
}

static void *finalize(void *unused) {
  real->f[C_FINALIZE](0, 0, 0, 0, 0, 0, 0, 0);
  return unused;
}

/* load makes the call again and again while another thread finalises. */
static W load(int i, W a, W b, W c, W d, W e, W f, W g, W h) {
  pthread_t t;
  W r = 0;
  if (pthread_create(&t, 0, finalize, 0) != 0) return CKR_GENERAL_ERROR;
  for (int n = 0; n < LOAD; n++) r = real->f[i](a, b, c, d, e, f, g, h);
  pthread_join(t, 0);
  return r;
}

/* call counts and spoils: before the call it fails, hangs, crashes or brings in a
 * crowd, during it the module is finalised, after it the answer is lost or the
 * process dies. */
static W call(int i, W a, W b, W c, W d, W e, W f, W g, W h) {
  uint32_t n = __atomic_add_fetch(&control->calls[i], 1, __ATOMIC_SEQ_CST), zero = 0;
  uint32_t action = NOTHING;
  if (control->action != NOTHING && control->target == (uint32_t)i && control->nth == n &&
      __atomic_compare_exchange_n(&control->done, &zero, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    action = control->action;
  if (action == FAIL) return control->code;
  if (action == FINALIZE) return load(i, a, b, c, d, e, f, g, h);
  if (action == CRASH) abort();
  while (action == HANG) pause();
  W r = action == CROWD ? crowd(a, b) : 0;
  if (r != 0) return r;
  r = real->f[i](a, b, c, d, e, f, g, h);
  if (action == LOSE) return control->code;
  if (action == DIE) raise(SIGKILL);
  return r;
}

#define F(i) static W w##i(W a, W b, W c, W d, W e, W f, W g, W h) { return call(i, a, b, c, d, e, f, g, h); }
#define TEN(t) F(t##0) F(t##1) F(t##2) F(t##3) F(t##4) F(t##5) F(t##6) F(t##7) F(t##8) F(t##9)
F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
F(60) F(61) F(62) F(63) F(64) F(65) F(66) F(67)

#define N(i) w##i,
#define TENN(t) N(t##0) N(t##1) N(t##2) N(t##3) N(t##4) N(t##5) N(t##6) N(t##7) N(t##8) N(t##9)
static const function wrappers[FUNCTIONS] = {
  N(0) N(1) N(2) N(3) N(4) N(5) N(6) N(7) N(8) N(9)
  TENN(1) TENN(2) TENN(3) TENN(4) TENN(5)
  N(60) N(61) N(62) N(63) N(64) N(65) N(66) N(67)
};

static W get_list(struct list **out) {
  *out = &mine;
  return 0;
}

__attribute__((visibility("default"))) W C_GetFunctionList(struct list **out) {
  if (!real) {
    setenv("SOFTHSM2_CONF", CONF, 1);
    int fd = open(CONTROL, O_RDWR);
    if (fd < 0) return CKR_GENERAL_ERROR;
    control = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    void *m = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
    W (*get)(struct list **) = m ? (W (*)(struct list **))dlsym(m, "C_GetFunctionList") : 0;
    if (control == MAP_FAILED || !get || get(&real) != 0) return CKR_GENERAL_ERROR;
    mine.version[0] = real->version[0];
    mine.version[1] = real->version[1];
    for (int i = 0; i < FUNCTIONS; i++) mine.f[i] = wrappers[i];
    mine.f[3] = (function)get_list; /* C_GetFunctionList itself */
  }
  return get_list(out);
}
