// Drives the Verilated core through its Wishbone port: loads an image, then for each input writes it, starts, waits for the
// interrupt and reads back a range of the store.
//
//   bench image.bin external.bin inputs.bin outputs.bin input_address input_bytes count read_address read_bytes limit warm [seed]
//
// All addresses are bytes of the store; sizes are multiples of four. Prints "cycles error" for each inference, and at the
// end "total" with the clock cycles simulated. With warm = 1 an inference of the first input comes before, cold, and the
// others are warm starts. With a seed, the store is filled with random bytes before the image.
//
// If the core has a port to an external memory, LATENCY and INTERVAL are the cycles from a request to the first word, and
// from the transfer of one to the next, and WORD the bytes of a word.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vgossamer_core.h"
#include "verilated.h"

static const uint32_t WINDOW = 0x800000, CONTROL = 0x04, STATUS = 0x08, CYCLES = 0x0c, WORDS = 0x10;

static std::unique_ptr<VerilatedContext> context;
static std::unique_ptr<Vgossamer_core> core;
static uint64_t ticks = 0;

#ifdef INTERVAL
static std::vector<uint8_t> external;
static uint64_t word_ready = 0;  // the tick from which the next word is there
static uint32_t word_address = 0, words_left = 0;

// What the memory answers in this cycle, and with the core's answer to that, what follows.
static void memory_drive() {
    core->memory_request_ready = words_left == 0;
    core->memory_valid = words_left != 0 && ticks >= word_ready;
    if (core->memory_valid) {
        uint8_t *data = reinterpret_cast<uint8_t *>(&core->memory_data);
        for (uint32_t i = 0; i < WORD; ++i) {
            size_t at = size_t(word_address) * WORD + i;
            data[i] = at < external.size() ? external[at] : 0;
        }
    }
    core->eval();
}

static void memory_step() {
    if (core->memory_request_valid && core->memory_request_ready) {
        word_address = core->memory_request_address;
        words_left = core->memory_request_words + 1;
        word_ready = ticks + LATENCY;
    } else if (core->memory_valid && core->memory_ready) {
        ++word_address;
        --words_left;
        word_ready = ticks + INTERVAL;
    }
}
#else
static void memory_drive() {}
static void memory_step() {}
#endif

static void tick() {
    core->clk = 0;
    core->eval();
    memory_drive();
    memory_step();
    core->clk = 1;
    core->eval();
    ++ticks;
}

static uint32_t access(uint32_t address, bool write, uint32_t value = 0) {
    core->wb_cyc = core->wb_stb = 1;
    core->wb_we = write;
    core->wb_adr = address >> 2;
    core->wb_sel = 15;
    core->wb_dat_w = value;
    for (int i = 0; i < 8; ++i) {
        tick();
        if (core->wb_ack || core->wb_err) {
            if (core->wb_err) {
                fprintf(stderr, "bus error at address %#x\n", address);
                exit(1);
            }
            uint32_t result = core->wb_dat_r;
            core->wb_cyc = core->wb_stb = 0;
            tick();
            return result;
        }
    }
    fprintf(stderr, "no answer from the bus at address %#x\n", address);
    exit(1);
}

static std::vector<uint32_t> slurp(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    std::vector<uint32_t> words;
    uint32_t word;
    while (fread(&word, 4, 1, file) == 1) words.push_back(word);
    fclose(file);
    return words;
}

int main(int argc, char **argv) {
    if (argc < 12) { fprintf(stderr, "usage: see bench.cpp\n"); return 2; }
    context = std::make_unique<VerilatedContext>();
    core = std::make_unique<Vgossamer_core>(context.get());
    auto image = slurp(argv[1]), inputs = slurp(argv[3]);
#ifdef INTERVAL
    auto words = slurp(argv[2]);
    external.assign(reinterpret_cast<uint8_t *>(words.data()), reinterpret_cast<uint8_t *>(words.data() + words.size()));
#endif
    FILE *out = fopen(argv[4], "wb");
    if (!out) { perror(argv[4]); return 1; }
    uint32_t input_address = atoll(argv[5]), input_words = atoll(argv[6]) / 4, count = atoll(argv[7]);
    uint32_t read_address = atoll(argv[8]), read_words = atoll(argv[9]) / 4;
    uint64_t limit = atoll(argv[10]);
    uint32_t warm = atoll(argv[11]);

    core->rst = 1;
    for (int i = 0; i < 4; ++i) tick();
    core->rst = 0;
    if (argc > 12) {
        uint32_t state = atoll(argv[12]) | 1, bytes = access(WORDS, false) * (access(0, false) >> 24);
        for (uint32_t i = 0; i < bytes; i += 4) {
            state ^= state << 13; state ^= state >> 17; state ^= state << 5;
            access(WINDOW + i, true, state);
        }
    }
    for (size_t i = 0; i < image.size(); ++i) access(WINDOW + 4 * i, true, image[i]);
    for (uint32_t run = 0; run < count + warm; ++run) {
        uint32_t n = run < warm ? 0 : run - warm;
        for (uint32_t i = 0; i < input_words; ++i)
            access(WINDOW + input_address + 4 * i, true, inputs[n * input_words + i]);
        access(CONTROL, true, run < warm || !warm ? 3 : 7);
        uint64_t start = ticks;
        while (!core->irq && ticks - start < limit) tick();
        if (!core->irq) {
            fprintf(stderr, "the core must finish within %llu cycles\n", (unsigned long long)limit);
            return 3;
        }
        uint32_t status = access(STATUS, false);
        printf("%u %u\n", access(CYCLES, false), status >> 8 & 15);
        fflush(stdout);
        for (uint32_t i = 0; i < read_words && run >= warm; ++i) {
            uint32_t word = access(WINDOW + read_address + 4 * i, false);
            fwrite(&word, 4, 1, out);
        }
    }
    printf("total %llu\n", (unsigned long long)ticks);
    fclose(out);
    core->final();
    return 0;
}
