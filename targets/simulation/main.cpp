//
// This file is part of the Mamba-2 LiteX accelerator.
//
// SPDX-License-Identifier: BSD-2-Clause
//
// Runs the Verilated SoC and connects its pads: console to standard output, Ethernet to a TAP device, UARTBone to a TCP
// connection, SPI flash (where it has one) to a file's contents. Ends on SIGTERM or SIGINT, and when the other end of
// standard input is closed, as it is when the program that started the simulation has died.
//
// Usage: Vsim [--tap NAME] [--uartbone LISTENING_SOCKET_FD] [--trace FILE.fst] [--flash FILE] [--flash-offset BYTES]
//             [+dram0=FILE +dram1=FILE ...], what the DRAM's banks hold at the start

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <verilated.h>
#ifdef TRACE
#include <verilated_fst_c.h>
#endif
#include "Vsim.h"

// Constants ----------------------------------------------------------------------------------------------------------

static const unsigned POLL_CYCLES     = 128;  // Cycles between two looks at the host's side.
static const unsigned CLOCK_PS        = 10000;
static const unsigned FRAME_BYTES     = 2048;
static const unsigned FRAME_BYTES_MIN = 60;
static const unsigned FRAME_GAP       = 24;   // Cycles: preamble, CRC and gap of a real link.
static const unsigned FRAME_PAUSE_MAX = 32;   // Cycles without a byte after which the rest of a frame does not come any more: a real link
                                              // wants one each 8 cycles. A SoC that was reset answers again after a hundred.

static volatile sig_atomic_t finish = 0;

static void on_signal(int)
{
    finish = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "Vsim: %s: %s\n", what, strerror(errno));
    exit(1);
}

// Console ------------------------------------------------------------------------------------------------------------

// Standard output <-- SoC. There is no input.
struct Console {
    void tick(Vsim &top)
    {
        if (top.console_source_valid)
            putchar(top.console_source_data);
    }

    void drive(Vsim &top)
    {
        top.console_source_ready = 1;
    }
};

// Ethernet -----------------------------------------------------------------------------------------------------------

// TAP device <--> SoC, a frame at a time. The device queues the frames that the SoC has not taken yet.
struct Ethernet {
    int      fd = -1;
    uint8_t  rx[FRAME_BYTES], tx[FRAME_BYTES];
    unsigned rx_length = 0, rx_sent = 0, rx_gap = 0, tx_length = 0, tx_pause = 0;

    void open_tap(const char *name)
    {
        struct ifreq request = {};
        fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            fail("/dev/net/tun");
        request.ifr_flags = IFF_TAP | IFF_NO_PI;
        strncpy(request.ifr_name, name, IFNAMSIZ - 1);
        if (ioctl(fd, TUNSETIFF, &request) < 0)
            fail(name);
    }

    // Asks the device for the next frame as soon as the last one is sent: no look later costs no cycles.
    void receive()
    {
        if (fd < 0 || rx_sent < rx_length)
            return;
        ssize_t length = read(fd, rx, sizeof rx);
        if (length <= 0)
            return;
        if (length < FRAME_BYTES_MIN) {
            memset(rx + length, 0, FRAME_BYTES_MIN - length);
            length = FRAME_BYTES_MIN;
        }
        rx_length = length;
        rx_sent   = 0;
        rx_gap    = FRAME_GAP;
    }

    void tick(Vsim &top)
    {
        if (top.eth_sink_valid && top.eth_sink_ready && ++rx_sent == rx_length)
            receive();
        else if (rx_gap)
            rx_gap--;
        if (!top.eth_source_valid) {
            if (++tx_pause > FRAME_PAUSE_MAX)
                tx_length = 0; // The SoC was reset: what it sends next is a new frame.
        } else {
            tx_pause = 0;
            if (tx_length < sizeof tx)
                tx[tx_length++] = top.eth_source_data;
            if (top.eth_source_last) {
                if (fd >= 0 && write(fd, tx, tx_length) < 0 && errno != EAGAIN && errno != EIO)
                    fail("write to TAP device");
                tx_length = 0;
            }
        }
    }

    void drive(Vsim &top)
    {
        top.eth_source_ready = 1;
        top.eth_sink_valid   = rx_sent < rx_length && !rx_gap;
        top.eth_sink_last    = rx_sent + 1 == rx_length;
        top.eth_sink_data    = rx_sent < rx_length ? rx[rx_sent] : 0;
    }
};

// UARTBone -----------------------------------------------------------------------------------------------------------

// TCP connection <--> SoC. One connection at a time; a new one is accepted when the last one is closed.
struct SerialPort {
    int      listener = -1, fd = -1;
    uint8_t  rx[4096], tx[4096];
    unsigned rx_length = 0, rx_sent = 0, tx_length = 0;

    void disconnect()
    {
        close(fd);
        fd = -1;
        rx_length = rx_sent = tx_length = 0;
    }

    void exchange()
    {
        if (listener < 0)
            return;
        if (fd < 0) {
            fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0)
                return;
            int one = 1;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        }
        if (tx_length) {
            ssize_t length = send(fd, tx, tx_length, MSG_NOSIGNAL);
            if (length > 0) {
                memmove(tx, tx + length, tx_length - length);
                tx_length -= length;
            } else if (errno != EAGAIN) {
                disconnect();
                return;
            }
        }
        if (rx_sent == rx_length) {
            ssize_t length = recv(fd, rx, sizeof rx, 0);
            if (length > 0) {
                rx_length = length;
                rx_sent   = 0;
            } else if (length == 0 || errno != EAGAIN) {
                disconnect();
            }
        }
    }

    void tick(Vsim &top)
    {
        if (top.uartbone_source_valid && top.uartbone_source_ready && fd >= 0)
            tx[tx_length++] = top.uartbone_source_data;
        if (top.uartbone_sink_valid && top.uartbone_sink_ready && ++rx_sent == rx_length)
            exchange();
    }

    void drive(Vsim &top)
    {
        top.uartbone_source_ready = tx_length < sizeof tx;
        top.uartbone_sink_valid   = rx_sent < rx_length;
        top.uartbone_sink_data    = rx_sent < rx_length ? rx[rx_sent] : 0;
    }
};

// SPI Flash ----------------------------------------------------------------------------------------------------------

// Answers the command 0x03: an address of three bytes in, data out. Outside of the file it is erased.
struct Flash {
    uint8_t *data = nullptr;
    unsigned size = 0, offset = 0, bits = 0;
    uint32_t command = 0;
    bool     clk = false, miso = true;

    void read_file(const char *name)
    {
        FILE *file = fopen(name, "rb");
        if (!file || fseek(file, 0, SEEK_END))
            fail(name);
        size = ftell(file);
        data = new uint8_t[size];
        rewind(file);
        if (fread(data, 1, size, file) != size)
            fail(name);
        fclose(file);
    }

    // Takes a bit at the clock's rising edge, gives one at the falling one.
    void edge(bool rising, bool mosi)
    {
        if (rising) {
            if (bits < 32)
                command = command << 1 | mosi;
            bits++;
        } else if (bits >= 32 && command >> 24 == 0x03) {
            unsigned address = (command & 0xffffff) + (bits - 32)/8 - offset; // Below offset: wraps, beyond size.
            miso = (address < size ? data[address] : 0xff) >> (7 - bits%8) & 1;
        }
    }

    void tick(Vsim &top)
    {
#ifdef FLASH
        if (top.spiflash_cs_n)
            bits = 0;
        else if (top.spiflash_clk != clk)
            edge(top.spiflash_clk, top.spiflash_mosi);
        clk = top.spiflash_clk;
#endif
    }

    void drive(Vsim &top)
    {
#ifdef FLASH
        top.spiflash_miso = miso;
#endif
    }
};

// Main ---------------------------------------------------------------------------------------------------------------

int main(int argc, char **argv)
{
    static Ethernet   ethernet;
    static SerialPort uartbone;
    static Flash      flash;
    static Console    console;
    const char       *trace = nullptr;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--tap"))
            ethernet.open_tap(argv[i + 1]);
        else if (!strcmp(argv[i], "--uartbone"))
            uartbone.listener = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--trace"))
            trace = argv[i + 1];
        else if (!strcmp(argv[i], "--flash"))
            flash.read_file(argv[i + 1]);
        else if (!strcmp(argv[i], "--flash-offset"))
            flash.offset = atoi(argv[i + 1]);
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT,  on_signal);

    VerilatedContext context;
    context.commandArgs(argc, argv);
#ifdef TRACE
    VerilatedFstC tracer;
    if (trace)
        context.traceEverOn(true);
#else
    if (trace) {
        fprintf(stderr, "Vsim: this model was built without tracing\n");
        return 1;
    }
#endif
    Vsim top{&context};
#ifdef TRACE
    if (trace) {
        top.trace(&tracer, 99);
        tracer.open(trace);
    }
#endif

    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t cycles = 0;
    while (!finish && !context.gotFinish()) {
        for (unsigned i = 0; i < POLL_CYCLES; i++) {
            // First half: the pads' inputs reach the outputs, which tick() then sees as the next edge will.
            console.drive(top);
            ethernet.drive(top);
            uartbone.drive(top);
            flash.drive(top);
            top.sys_clk = 0;
            top.eval();
#ifdef TRACE
            if (trace)
                tracer.dump(cycles*CLOCK_PS);
#endif
            console.tick(top);
            ethernet.tick(top);
            uartbone.tick(top);
            flash.tick(top);

            // Second half.
            top.sys_clk = 1;
            top.eval();
#ifdef TRACE
            if (trace)
                tracer.dump(cycles*CLOCK_PS + CLOCK_PS/2);
#endif
            cycles++;
        }
        ethernet.receive();
        uartbone.exchange();
        fflush(stdout);
        struct pollfd input = {STDIN_FILENO, 0, 0};
        if (poll(&input, 1, 0) > 0 && input.revents & (POLLHUP | POLLERR | POLLNVAL))
            finish = 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (now.tv_sec - start.tv_sec) + 1e-9*(now.tv_nsec - start.tv_nsec);
    printf("\nVsim: %llu cycles in %.2f s: %.3f million cycles/s\n", (unsigned long long)cycles, seconds,
        1e-6*cycles/seconds);
#ifdef TRACE
    if (trace)
        tracer.close();
#endif
    fflush(stdout);
    _exit(0); // The destructors of a model with 256 MiB of DRAM have nothing to do that the system does not.
}
