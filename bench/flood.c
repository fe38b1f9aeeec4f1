/* Traffic for the benchmarks. Usage:
 *
 *   flood send IFACE MAC COUNT FIRST PORTS DPORT HOSTS RATE CPU
 *       UDP frames from an interface; source ports FIRST..FIRST+PORTS-1 in turn, so that PORTS >= COUNT makes
 *       each frame a new flow. HOSTS source and destination addresses are used in turn.
 *   flood reply FILE COUNT RATE CPU
 *       UDP frames of the far end; the file has one flow a line: IFINDEX MAC ADDRESS PORT FROM-PORT.
 *   flood serve PORT
 *       accept TCP connections and close each at once, until SIGTERM.
 *   flood dial ADDRESS PORT INFLIGHT SECONDS
 *       open TCP connections, INFLIGHT at a time, each until the server's FIN.
 *
 * RATE is frames a second, 0 for as fast as possible; CPU is the processor to stay on. The first two print
 * "frames wall-seconds thread-CPU-seconds" and end early, with a true count, on SIGTERM. Frames leave past the
 * queueing discipline, so that the whole path through a router namespace runs in a softirq of this very thread
 * and its CPU time is the price of the path. `dial` prints "connections failures seconds".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
#define FRAME 60 /* the shortest Ethernet frame, without its checksum */
#define CLIENT 0xc0a80f0a /* 192.168.15.10 */
#define SERVER 0xc6336401 /* 198.51.100.1 */

struct target {
    int index;
    uint8_t mac[ETH_ALEN];
    uint32_t address;
    uint16_t port, from;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void sleep_until(double moment)
{
    struct timespec t = {(time_t)moment, (long)((moment - (double)(time_t)moment) * 1e9)};
    while (!stopped && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        die("sched_setaffinity");
}

static void parse_mac(const char *text, uint8_t *mac)
{
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6) {
        fprintf(stderr, "not a link-layer address: %s\n", text);
        exit(2);
    }
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)(value >> 16));
    put16(at + 2, (uint16_t)value);
}

/* Ethernet, IPv4 (RFC 791) and UDP (RFC 768, without the optional checksum). */
static void write_frame(uint8_t *frame, const uint8_t *mac, uint32_t from, uint32_t to, uint16_t sport, uint16_t dport)
{
    static const uint8_t sender[ETH_ALEN] = {2, 0, 0, 0, 0, 0xfe};
    uint8_t *ip = frame + ETH_HLEN, *udp = ip + 20;
    uint32_t sum = 0;

    memset(frame, 0, FRAME);
    memcpy(frame, mac, ETH_ALEN);
    memcpy(frame + ETH_ALEN, sender, ETH_ALEN);
    put16(frame + 2 * ETH_ALEN, ETH_P_IP);
    ip[0] = 0x45;
    put16(ip + 2, FRAME - ETH_HLEN);
    put16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = IPPROTO_UDP;
    put32(ip + 12, from);
    put32(ip + 16, to);
    for (int i = 0; i < 20; i += 2)
        sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    put16(ip + 10, (uint16_t)~sum);
    put16(udp, sport);
    put16(udp + 2, dport);
    put16(udp + 4, FRAME - ETH_HLEN - 20);
}

static uint8_t frames[BATCH][FRAME];
static struct sockaddr_ll ends[BATCH];
static struct mmsghdr messages[BATCH];

static int open_wire(void)
{
    static struct iovec parts[BATCH];
    int one = 1, wire = socket(AF_PACKET, SOCK_RAW, 0);
    if (wire < 0)
        die("packet socket");
    if (setsockopt(wire, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) < 0)
        die("PACKET_QDISC_BYPASS");
    for (int i = 0; i < BATCH; i++) {
        ends[i].sll_family = AF_PACKET;
        ends[i].sll_protocol = htons(ETH_P_IP);
        ends[i].sll_halen = ETH_ALEN;
        parts[i].iov_base = frames[i];
        parts[i].iov_len = FRAME;
        messages[i].msg_hdr.msg_name = &ends[i];
        messages[i].msg_hdr.msg_namelen = sizeof ends[i];
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    return wire;
}

typedef void (*writer)(const void *plan, long number, int slot);

static int transmit(writer write_one, const void *plan, long count, double rate)
{
    int wire = open_wire();
    long sent = 0, refusals = 0, most = BATCH;
    if (rate > 0 && rate < 1000 * BATCH)
        most = rate < 1000 ? 1 : (long)(rate / 1000);
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
    while (sent < count && !stopped) {
        int batch = (int)(count - sent < most ? count - sent : most);
        for (int i = 0; i < batch; i++)
            write_one(plan, sent + i, i);
        if (rate > 0)
            sleep_until(start + (double)sent / rate);
        int done = sendmmsg(wire, messages, (unsigned)batch, 0);
        if (done > 0)
            sent += done;
        else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            die("sendmmsg");
        else if (++refusals > 100000)
            break;
    }
    cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    printf("%ld %.6f %.6f\n", sent, seconds(CLOCK_MONOTONIC) - start, cpu);
    return 0;
}

struct sending {
    int index;
    uint8_t mac[ETH_ALEN];
    long first, ports, hosts;
    uint16_t dport;
};

static void write_sent(const void *given, long number, int slot)
{
    const struct sending *plan = given;
    uint32_t host = (uint32_t)(number % plan->hosts);
    ends[slot].sll_ifindex = plan->index;
    write_frame(frames[slot], plan->mac, CLIENT + host, SERVER + host, (uint16_t)(plan->first + number % plan->ports),
                plan->dport);
}

static int flood_send(char **args)
{
    struct sending plan = {.index = (int)if_nametoindex(args[0])};
    if (plan.index == 0)
        die(args[0]);
    parse_mac(args[1], plan.mac);
    plan.first = atol(args[3]);
    plan.ports = atol(args[4]);
    plan.dport = (uint16_t)atoi(args[5]);
    plan.hosts = atol(args[6]);
    stay_on(atoi(args[8]));
    return transmit(write_sent, &plan, atol(args[2]), atof(args[7]));
}

struct replying {
    long count;
    struct target *targets;
};

static void write_reply(const void *given, long number, int slot)
{
    const struct replying *plan = given;
    const struct target *to = &plan->targets[number % plan->count];
    ends[slot].sll_ifindex = to->index;
    write_frame(frames[slot], to->mac, SERVER, to->address, to->from, to->port);
}

static int flood_reply(char **args)
{
    struct replying plan = {0, NULL};
    char mac[32], address[32];
    int index;
    unsigned port, from;
    FILE *file = fopen(args[0], "r");
    if (file == NULL)
        die(args[0]);
    while (fscanf(file, "%d %31s %31s %u %u", &index, mac, address, &port, &from) == 5) {
        plan.targets = realloc(plan.targets, (size_t)(plan.count + 1) * sizeof *plan.targets);
        if (plan.targets == NULL)
            die("memory");
        struct target *to = &plan.targets[plan.count++];
        to->index = index;
        parse_mac(mac, to->mac);
        to->address = ntohl(inet_addr(address));
        to->port = (uint16_t)port;
        to->from = (uint16_t)from;
    }
    fclose(file);
    if (plan.count == 0) {
        fputs("no flow to reply to\n", stderr);
        return 2;
    }
    stay_on(atoi(args[3]));
    return transmit(write_reply, &plan, atol(args[1]), atof(args[2]));
}

static void watch(int poll, int fd, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.fd = fd};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static int flood_serve(char **args)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[0]))};
    int one = 1, poll = epoll_create1(0), door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event event;
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(door, (struct sockaddr *)&here, sizeof here) < 0 || listen(door, 4096) < 0)
        die("listen");
    watch(poll, door, EPOLLIN);
    puts("listening");
    fflush(stdout);
    while (!stopped) {
        int guest;
        if (epoll_wait(poll, &event, 1, 200) > 0)
            while ((guest = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                close(guest);
    }
    return 0;
}

static void dial_one(int poll, const struct sockaddr_in *there)
{
    int call = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (call < 0)
        die("socket");
    if (connect(call, (const struct sockaddr *)there, sizeof *there) < 0 && errno != EINPROGRESS)
        die("connect");
    watch(poll, call, EPOLLIN);
}

static int flood_dial(char **args)
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[1]))};
    struct linger abort_it = {1, 0}; /* ends with a reset, so that no port waits in TIME_WAIT (socket(7)) */
    struct epoll_event events[64];
    int poll = epoll_create1(0), inflight = atoi(args[2]);
    long good = 0, bad = 0;
    there.sin_addr.s_addr = inet_addr(args[0]);
    double start = seconds(CLOCK_MONOTONIC), end = start + atof(args[3]);
    for (int i = 0; i < inflight; i++)
        dial_one(poll, &there);
    while (seconds(CLOCK_MONOTONIC) < end) {
        int ready = epoll_wait(poll, events, 64, 100);
        for (int i = 0; i < ready; i++) {
            char byte;
            int call = events[i].data.fd;
            if (read(call, &byte, 1) == 0)
                good++;
            else
                bad++;
            setsockopt(call, SOL_SOCKET, SO_LINGER, &abort_it, sizeof abort_it);
            close(call);
            dial_one(poll, &there);
        }
    }
    printf("%ld %ld %.6f\n", good, bad, seconds(CLOCK_MONOTONIC) - start);
    return 0;
}

int main(int count, char **args)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    if (count == 11 && strcmp(args[1], "send") == 0)
        return flood_send(args + 2);
    if (count == 6 && strcmp(args[1], "reply") == 0)
        return flood_reply(args + 2);
    if (count == 3 && strcmp(args[1], "serve") == 0)
        return flood_serve(args + 2);
    if (count == 6 && strcmp(args[1], "dial") == 0)
        return flood_dial(args + 2);
    fputs("usage: see the head of flood.c\n", stderr);
    return 2;
}
