/* What a hostile module would try while it is loaded. Each line of OUT is the
 * name of a try and its errno, 0 if it worked. Compiled as a library for
 * keyrite-hsmd, and as a program that shows what works without it:
 *   -DOUT="..." -DSECRET="file" -DELSEWHERE="folder" -DPORT=n -DOTHER=n */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static FILE *out;

static void said(const char *name, long r) {
  fprintf(out, "%s %d\n", name, r < 0 ? errno : 0);
}

static int opened(const char *path, int flags) {
  int fd = open(path, flags, 0600);
  if (fd >= 0) close(fd);
  return fd;
}

static void sock(const char *name, int family, int kind) {
  int fd = socket(family, kind, 0);
  said(name, fd);
  if (fd >= 0) close(fd);
}

static void connects(const char *name, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  said(name, fd < 0 ? fd : connect(fd, (struct sockaddr *)&a, sizeof a));
  if (fd >= 0) close(fd);
}

/* in_child runs f in a process of its own, which ends with its errno. */
static void in_child(const char *name, long (*f)(void)) {
  pid_t pid = fork();
  if (pid == 0) {
    errno = 0;
    long r = f();
    _exit(r < 0 ? errno : 0);
  }
  int st = 0;
  waitpid(pid, &st, 0);
  fprintf(out, "%s %d\n", name, WIFEXITED(st) ? WEXITSTATUS(st) : 1000);
}

static long executes(void) {
  char *argv[] = {"true", 0};
  return execve("/bin/true", argv, 0);
}
static long unshares(void) { return unshare(CLONE_NEWUSER); }
static long clones(void) {
  long r = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (r == 0) _exit(0);
  return r;
}
static long dumpable(void) { return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }
static long cores(void) {
  struct rlimit l = {4096, 4096};
  return setrlimit(RLIMIT_CORE, &l);
}

__attribute__((constructor)) static void probe(void) {
  char path[64];
  out = fopen(OUT, "w");
  if (!out) return;
  sock("inet", AF_INET, SOCK_STREAM);
  sock("inet-datagram", AF_INET, SOCK_DGRAM);
  sock("inet6-datagram", AF_INET6, SOCK_DGRAM);
  sock("unix", AF_UNIX, SOCK_STREAM);
  sock("netlink", AF_NETLINK, SOCK_RAW);
  connects("port", PORT);
  connects("other-port", OTHER);
  in_child("execve", executes);
  in_child("unshare", unshares);
  in_child("clone-user", clones);
  in_child("dumpable", dumpable);
  in_child("core", cores);
  said("ptrace", ptrace(PTRACE_SEIZE, getppid(), 0, 0));
  said("parent", kill(getppid(), 0));
  said("self", kill(getpid(), 0));
  snprintf(path, sizeof path, "/proc/%d/environ", getppid());
  said("parent-environ", opened(path, O_RDONLY));
  said("read-secret", opened(SECRET, O_RDONLY));
  said("write-elsewhere", opened(ELSEWHERE "/planted", O_CREAT | O_WRONLY));
  said("device", opened("/dev/full", O_RDONLY));
  said("read-system", opened("/etc/passwd", O_RDONLY));
  said("write-null", opened("/dev/null", O_WRONLY));
  said("mount", mount("none", "/mnt", "tmpfs", 0, 0));
  said("io-uring", syscall(SYS_io_uring_setup, 1, 0));
  said("bpf", syscall(SYS_bpf, 0, 0, 0));
  said("keyctl", syscall(SYS_keyctl, 0, -3, 0));
  said("tiocsti", ioctl(0, TIOCSTI, "x"));
  fclose(out);
}

/* By which a library passes for a PKCS#11 module; it fails (CKR_GENERAL_ERROR). */
unsigned long C_GetFunctionList(void **list) {
  (void)list;
  return 5;
}

#ifdef PROGRAM
int main(void) { return 0; }
#endif
