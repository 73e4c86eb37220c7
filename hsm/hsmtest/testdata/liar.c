/* A PKCS#11 module that passes every call on to SoftHSM and lies about one thing:
 * an attribute of the objects of one class, or the signatures. Tests compile it with
 *   -DREAL="/path/of/module" -DCONF="/path/of/softhsm2.conf" -DCONTROL="/path"
 * where CONTROL is a file of struct control, shared by all processes that load it. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define FUNCTIONS 68
#define GET_LIST 3
#define GET_ATTRIBUTE 24
#define SIGN 43
#define CKA_CLASS 0UL
#define NOWHERE 0xffffffffU

typedef unsigned long W;
struct attribute { W type; void *value; W length; };
typedef W (*function)(W, W, W, W, W);
struct list {
  unsigned char version[2];
  function f[FUNCTIONS];
};
struct control {
  uint32_t class, type; /* which attribute of which class; NOWHERE: none */
  uint32_t garble;      /* signatures */
  uint32_t lies;        /* so far */
};

static struct list *real, mine;
static struct control *control;

static W class_of(W session, W object) {
  W class = ~0UL;
  struct attribute a = {CKA_CLASS, &class, sizeof class};
  return real->f[GET_ATTRIBUTE](session, object, (W)&a, 1, 0) == 0 ? class : ~0UL;
}

/* An empty value gets a byte, any other another first byte. */
static W get_attribute(W session, W object, W template, W count, W unused) {
  W r = real->f[GET_ATTRIBUTE](session, object, template, count, unused);
  struct attribute *a = (struct attribute *)template;
  if (r != 0 || control->class != (uint32_t)class_of(session, object)) return r;
  for (W i = 0; i < count; i++) {
    if ((uint32_t)a[i].type != control->type || a[i].length == ~0UL) continue;
    unsigned char *v = a[i].value;
    if (a[i].length == 0) {
      a[i].length = 1;
      if (v) *v = 1;
    } else if (v)
      *v ^= 1;
    if (v) __atomic_add_fetch(&control->lies, 1, __ATOMIC_SEQ_CST);
  }
  return r;
}

static W sign(W session, W data, W n, W signature, W length) {
  W r = real->f[SIGN](session, data, n, signature, length);
  if (r == 0 && signature && control->garble) {
    ((unsigned char *)signature)[*(W *)length - 1] ^= 1;
    __atomic_add_fetch(&control->lies, 1, __ATOMIC_SEQ_CST);
  }
  return r;
}

static W get_list(struct list **out) {
  *out = &mine;
  return 0;
}

__attribute__((visibility("default"))) W C_GetFunctionList(struct list **out) {
  if (!real) {
    setenv("SOFTHSM2_CONF", CONF, 1);
    int fd = open(CONTROL, O_RDWR);
    if (fd < 0) return 5;
    control = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    void *m = dlopen(REAL, RTLD_NOW | RTLD_LOCAL);
    W (*get)(struct list **) = m ? (W (*)(struct list **))dlsym(m, "C_GetFunctionList") : 0;
    if (control == MAP_FAILED || !get || get(&real) != 0) return 5;
    mine = *real;
    mine.f[GET_LIST] = (function)get_list;
    mine.f[GET_ATTRIBUTE] = get_attribute;
    mine.f[SIGN] = sign;
  }
  return get_list(out);
}
