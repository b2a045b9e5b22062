// Drives the Verilated core through its Wishbone port: loads an image, then for each input writes it, starts, waits for the
// interrupt and reads back a range of the store. At host steps it gives and takes rows, as gossamer.golden.host does.
//
//   bench image.bin external.bin inputs.bin outputs.bin input_address input_bytes count read_address read_bytes limit warm [seed]
//
// All addresses are bytes of the store; sizes are multiples of four. With an input_address of 0 only the host steps give input,
// and with a read_address of 0 "outputs.bin" gets, of read_bytes, what they take. Tensors have rows of whole store words. Prints "cycles error" for each inference, and at the
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

#include "Vtop.h"
#include "verilated.h"

static const uint32_t WINDOW = 0x800000, CONTROL = 0x04, STATUS = 0x08, CYCLES = 0x0c, WORDS = 0x10, STEP = 0x14;

static const uint32_t INTERRUPT_ENABLE = 2, START = 1 | INTERRUPT_ENABLE, WARM = 4, RESUME = 8 | INTERRUPT_ENABLE, PAUSED = 8;

static std::unique_ptr<VerilatedContext> context;
static std::unique_ptr<Vtop> core;
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

static void fail(const char *sentence) {
    fprintf(stderr, "%s\n", sentence);
    exit(1);
}

// A tensor at the host: what the image's header says of it, its bytes, and how many rows have been given or taken.
struct Tensor {
    uint32_t rows, columns, pitch, row_bytes, done;
    uint8_t *data;
    Tensor(const std::vector<uint32_t> &header, uint32_t field)
        : rows(header[field] & 0xffff), columns(header[field] >> 16), pitch(header[field + 1] >> 16), done(0), data(nullptr) {
        uint32_t word = header[1] >> 24 & 31;
        row_bytes = (columns * pitch + word - 1) / word * word;
    }
};

// Does what the host step says that the core has stopped at.
static void serve(Tensor &input, Tensor &output) {
    uint32_t word = access(0, false) >> 24, step[4];
    uint32_t at = WINDOW + access(STEP, false) * word - 16;
    for (int i = 0; i < 4; ++i) step[i] = access(at + 4 * i, false);
    bool take = step[0] >> 4 & 1, first = step[0] >> 5 & 1;
    uint32_t rows = step[1] & 0xffff, columns = step[1] >> 16;
    uint32_t address = step[2] & 0xfffff, row_words = (step[2] >> 20 | step[3] << 12) & 0xffff, column = step[3] >> 4 & 0xffff;
    Tensor &tensor = take ? output : input;
    if (first) tensor.done = 0;
    if (!tensor.data || tensor.done + rows > tensor.rows || column + columns > tensor.columns)
        fail("a host step must be for rows and columns that the tensor has");
    uint32_t size = columns * tensor.pitch, bytes = (size + word - 1) / word * word;
    for (uint32_t r = 0; r < rows; ++r) {
        uint8_t *row = tensor.data + (tensor.done + r) * tensor.row_bytes + column * tensor.pitch;
        uint32_t to = WINDOW + (address + r * row_words) * word;
        for (uint32_t i = 0; i < bytes; i += 4) {
            uint32_t value = take ? access(to + i, false) : 0;
            for (uint32_t b = 0; b < 4 && i + b < size; ++b) {
                if (take) row[i + b] = value >> 8 * b;
                else value |= uint32_t(row[i + b]) << 8 * b;
            }
            if (!take) access(to + i, true, value);
        }
    }
    tensor.done += rows;
}

int main(int argc, char **argv) {
    if (argc < 12) { fprintf(stderr, "usage: see bench.cpp\n"); return 2; }
    context = std::make_unique<VerilatedContext>();
    core = std::make_unique<Vtop>(context.get());
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
    Tensor input(image, 8), output(image, 10);
    std::vector<uint32_t> taken(read_words);
    if (!read_address) output.data = reinterpret_cast<uint8_t *>(taken.data());
    for (uint32_t run = 0; run < count + warm; ++run) {
        uint32_t n = run < warm ? 0 : run - warm;
        if (!input_address) input.data = reinterpret_cast<uint8_t *>(&inputs[n * input_words]);
        input.done = output.done = 0;
        taken.assign(taken.size(), 0);
        for (uint32_t i = 0; i < input_words && input_address; ++i)
            access(WINDOW + input_address + 4 * i, true, inputs[n * input_words + i]);
        access(CONTROL, true, START | (run < warm || !warm ? 0 : WARM));
        uint64_t start = ticks;
        uint32_t status;
        while (true) {
            while (!core->irq && ticks - start < limit) tick();
            if (!core->irq) {
                fprintf(stderr, "the core must finish within %llu cycles\n", (unsigned long long)limit);
                return 3;
            }
            status = access(STATUS, false);
            if (!(status & PAUSED)) break;
            serve(input, output);
            access(CONTROL, true, RESUME);
        }
        printf("%u %u\n", access(CYCLES, false), status >> 8 & 15);
        fflush(stdout);
        for (uint32_t i = 0; i < read_words && run >= warm; ++i) {
            uint32_t word = read_address ? access(WINDOW + read_address + 4 * i, false) : taken[i];
            fwrite(&word, 4, 1, out);
        }
    }
    printf("total %llu\n", (unsigned long long)ticks);
    fclose(out);
    core->final();
    return 0;
}
