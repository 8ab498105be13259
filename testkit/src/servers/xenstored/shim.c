/*
 * A replacement, without Xen, for the three libraries through which the C xenstored of Xen 4.17 talks
 * to the hypervisor.
 *
 * The daemon needs two things of Xen: the state of a domain, and a wakeup when a state may have changed
 * (the VIRQ_DOM_EXC). Here the test provides both:
 *
 *   $XENSTORED_ORACLE/<domid>   a file with the domain's state: "running", "shutdown", "crashed" or
 *                               "dying"; no file, no such domain
 *   SIGUSR1                     raises the VIRQ
 *
 * All else (event channels to guests, grants of their pages) succeeds and does nothing, since guests do
 * not talk to this daemon. It is linked as libxenctrl, libxenevtchn and libxengnttab in a directory of
 * LD_LIBRARY_PATH, and defines only the functions that the daemon uses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define VIRQ_PORT 7

static int dummy;       /* the target of every handle */
static int virqs = -1;  /* an eventfd: VIRQs that the daemon has not read yet */

static void raise_virq(int number)
{
    eventfd_write(virqs, 1);
}

/* Before main: a test may send the signal as soon as the process exists. */
__attribute__((constructor)) static void prepare(void)
{
    struct sigaction action = { .sa_handler = raise_virq, .sa_flags = SA_RESTART };

    virqs = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    sigaction(SIGUSR1, &action, NULL);
}

/* A file without a name that replaces one in /proc/xen. */
static int fake_file(const char *text, off_t size)
{
    int fd = memfd_create("xen", 0);

    if (fd >= 0) {
        if (pwrite(fd, text, strlen(text), 0) < 0 || ftruncate(fd, size) < 0) {
            close(fd);
            return -1;
        }
    }
    return fd;
}

/*
 * The daemon reads the event channel of dom0's ring from one file and maps its page from another. The
 * page stays zero: an idle ring.
 *
 * The dynamic linker finds this `open` before libc's, so other files are opened by openat().
 */
int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list rest;

    if (strstr(path, "xsd_port"))
        return fake_file("1", 1);
    if (strstr(path, "xsd_kva"))
        return fake_file("", PAGE);
    if (flags & O_CREAT) {
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return openat(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

/* Reads the state that the test has set. Dom0 has none: it always runs. */
static bool read_state(uint32_t domid, char *state, size_t size)
{
    const char *oracle = getenv("XENSTORED_ORACLE");
    char path[PAGE];
    ssize_t length;
    int fd;

    memset(state, 0, size);
    if (domid == 0)
        return true;
    snprintf(path, sizeof path, "%s/%u", oracle ? oracle : ".", domid);
    fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    length = read(fd, state, size - 1);
    close(fd);
    return length > 0;
}

/* libxenctrl: the states of domains. */

void *xc_interface_open(void *ignored, void *ignored_too, unsigned int flags)
{
    return &dummy;
}

int xc_interface_close(void *handle)
{
    return 0;
}

/*
 * The state of the first domain from `domid` on. `answer` begins with the domain's id, a label, and a
 * word of bits. Returns 0 and another id if there is no such domain.
 */
int xc_domain_getinfo(void *handle, uint32_t domid, unsigned int max, uint32_t *answer)
{
    enum { DYING = 1, CRASHED = 2, SHUTDOWN = 4 };
    char state[16];

    memset(answer, 0, 3 * sizeof *answer);
    answer[0] = domid;
    if (!read_state(domid, state, sizeof state)) {
        answer[0] = domid + 1;
        return 0;
    }
    if (!strcmp(state, "shutdown"))
        answer[2] = SHUTDOWN;
    else if (!strcmp(state, "crashed"))
        answer[2] = SHUTDOWN | CRASHED;
    else if (!strcmp(state, "dying"))
        answer[2] = DYING;
    return 1;
}

/* libxenevtchn: one descriptor to poll, and ports. */

void *xenevtchn_open(void *ignored, unsigned int flags)
{
    return &dummy;
}

void *xenevtchn_fdopen(void *ignored, int fd, unsigned int flags)
{
    return &dummy;
}

int xenevtchn_close(void *handle)
{
    return 0;
}

int xenevtchn_fd(void *handle)
{
    return virqs;
}

int xenevtchn_bind_virq(void *handle, unsigned int virq)
{
    return VIRQ_PORT;
}

/* A different port for each guest, since the daemon finds domains by their port. */
int xenevtchn_bind_interdomain(void *handle, uint32_t domid, uint32_t its_port)
{
    static int last = 100;

    return ++last;
}

int xenevtchn_pending(void *handle)
{
    eventfd_t count;

    return eventfd_read(virqs, &count) ? -1 : VIRQ_PORT;
}

int xenevtchn_notify(void *handle, uint32_t port)
{
    return 0;
}

int xenevtchn_unbind(void *handle, uint32_t port)
{
    return 0;
}

int xenevtchn_unmask(void *handle, uint32_t port)
{
    return 0;
}

/* libxengnttab: a page of zeros as the ring of each guest that exists. */

void *xengnttab_open(void *ignored, unsigned int flags)
{
    return &dummy;
}

int xengnttab_close(void *handle)
{
    return 0;
}

int xengnttab_set_max_grants(void *handle, uint32_t count)
{
    return 0;
}

void *xengnttab_map_grant_ref(void *handle, uint32_t domid, uint32_t ref, int prot)
{
    char state[16];
    void *page;

    if (!read_state(domid, state, sizeof state)) {
        errno = EINVAL;
        return NULL;
    }
    page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? NULL : page;
}

int xengnttab_unmap(void *handle, void *start, uint32_t count)
{
    return munmap(start, (size_t)count * PAGE);
}
