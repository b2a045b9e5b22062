// The Verilated core and bridge, or processor, with the serial line on a pseudo-terminal, whose name is printed. Ends with its input.
//
// DIVISOR are the cycles per bit, SILENCE those of the bridge.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include "Vtop.h"
#include "verilated.h"

static std::unique_ptr<VerilatedContext> context;
static std::unique_ptr<Vtop> board;
static std::deque<uint8_t> arrived;
static int line;

// The PC's side: a bit of each byte, with a start bit in front and a stop bit behind, takes DIVISOR cycles.
static uint32_t sending = 0, sending_bits = 0, sending_cycles = 0;
static uint32_t receiving = 0, receiving_bits = 0, receiving_cycles = 0;

static void tick() {
    if (!sending_cycles) {
        if (!sending_bits && !arrived.empty()) {
            sending = arrived.front() << 1 | 0x200;
            arrived.pop_front();
            sending_bits = 10;
        }
        board->rx = sending_bits ? sending & 1 : 1;
        if (sending_bits) {
            sending >>= 1;
            --sending_bits;
            sending_cycles = DIVISOR;
        }
    }
    if (sending_cycles) --sending_cycles;
    board->clk = 0;
    board->eval();
    board->clk = 1;
    board->eval();
    if (!receiving_bits) {
        if (!board->tx) {
            receiving_bits = 9;
            receiving_cycles = DIVISOR + DIVISOR / 2;
        }
    } else if (!--receiving_cycles) {
        receiving = receiving >> 1 | uint32_t(board->tx) << 8;
        receiving_cycles = DIVISOR;
        if (!--receiving_bits) {
            uint8_t byte = receiving & 0xff;
            if (write(line, &byte, 1) != 1) exit(1);
        }
    }
}

int main(int argc, char **argv) {
    context = std::make_unique<VerilatedContext>();
    context->commandArgs(argc, argv);
    board = std::make_unique<Vtop>(context.get());
    line = posix_openpt(O_RDWR | O_NOCTTY);
    if (line < 0 || grantpt(line) || unlockpt(line)) { perror("pseudo-terminal"); return 1; }
    int other = open(ptsname(line), O_RDWR | O_NOCTTY);  // kept open: the line outlives those who use it
    termios settings;
    tcgetattr(other, &settings);
    cfmakeraw(&settings);
    tcsetattr(other, TCSANOW, &settings);
    board->rx = 1;
    board->rst = 1;
    for (int i = 0; i < 4; ++i) tick();
    board->rst = 0;
    printf("%s\n", ptsname(line));
    fflush(stdout);
    uint32_t answer = 0;  // cycles in which the bridge may still begin to answer
    while (true) {
        bool active = !arrived.empty() || sending_bits || sending_cycles || receiving_bits || board->busy || answer;
        pollfd waiting[] = {{line, POLLIN, 0}, {0, POLLIN, 0}};
        poll(waiting, 2, active ? 0 : 1);
        if (waiting[1].revents) return 0;
        if (waiting[0].revents & POLLIN) {
            uint8_t bytes[4096];
            ssize_t count = read(line, bytes, sizeof bytes);
            if (count > 0) arrived.insert(arrived.end(), bytes, bytes + count);
            answer = 1;
        } else if (!active) {
            for (int i = 0; i < SILENCE / 4; ++i) tick();
        }
        if (active) {
            for (int i = 0; i < 40 * DIVISOR; ++i) tick();
            answer = arrived.empty() && !sending_bits && !sending_cycles && !receiving_bits ? 0 : 1;
        }
    }
}
