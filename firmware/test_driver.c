/* The least that must work where there is no Python: a core in a few lines, whose program copies its input. The tests in
 * tests/firmware know more. */

#include <stdio.h>
#include <string.h>

#include "gossamer.h"

enum { STORE_WORDS = 256, STORE_BYTES = 8, INPUT = 128, OUTPUT = 192 };

static uint32_t store[STORE_WORDS * STORE_BYTES / 4], status, starts, polls;

static bool read_word(void *context, uint32_t address, uint32_t *word)
{
    (void)context;
    if (address >= GOSSAMER_STORE_WINDOW && address - GOSSAMER_STORE_WINDOW < sizeof store) {
        *word = store[(address - GOSSAMER_STORE_WINDOW) / 4];
        return !(status & GOSSAMER_STATUS_BUSY_MASK);
    }
    switch (address) {
    case GOSSAMER_IDENT_ADDRESS:
        *word = GOSSAMER_VERSION | 8u << GOSSAMER_IDENT_LANES_SHIFT | (uint32_t)STORE_BYTES << GOSSAMER_IDENT_STORE_BYTES_SHIFT;
        return true;
    case GOSSAMER_STORE_WORDS_ADDRESS:
        *word = STORE_WORDS;
        return true;
    case GOSSAMER_STATUS_ADDRESS:
        *word = status;
        if (status & GOSSAMER_STATUS_BUSY_MASK && ++polls == 3) {
            memcpy(&store[OUTPUT / 4], &store[INPUT / 4], 16);
            status = GOSSAMER_STATUS_DONE_MASK;
        }
        return true;
    case GOSSAMER_CYCLES_ADDRESS:
        *word = 1234;
        return true;
    default:
        return false;
    }
}

static bool write_word(void *context, uint32_t address, uint32_t word)
{
    (void)context;
    if (address == GOSSAMER_CONTROL_ADDRESS) {
        starts += word & GOSSAMER_CONTROL_START_MASK;
        status = GOSSAMER_STATUS_BUSY_MASK;
        polls = 0;
        return true;
    }
    if (address < GOSSAMER_STORE_WINDOW || address - GOSSAMER_STORE_WINDOW >= sizeof store)
        return false;
    store[(address - GOSSAMER_STORE_WINDOW) / 4] = word;
    return true;
}

static int failures;

static void expect(int line, bool condition)
{
    if (!condition) {
        printf("%s:%d: failed\n", __FILE__, line);
        ++failures;
    }
}
#define EXPECT(condition) expect(__LINE__, condition)

static void set(uint8_t *record, uint32_t first, uint32_t width, uint32_t value)
{
    for (uint32_t bit = 0; bit < width; ++bit)
        record[(first + bit) / 8] |= (uint8_t)((value >> bit & 1) << (first + bit) % 8);
}

int main(void)
{
    uint8_t image[GOSSAMER_HEADER_BYTES + GOSSAMER_STEP_BYTES] = {0};
    set(image, GOSSAMER_HEADER_MAGIC, GOSSAMER_MAGIC);
    set(image, GOSSAMER_HEADER_VERSION, GOSSAMER_VERSION);
    set(image, GOSSAMER_HEADER_LANES, 8);
    set(image, GOSSAMER_HEADER_STORE_BYTES, STORE_BYTES);
    set(image, GOSSAMER_HEADER_STEPS, GOSSAMER_HEADER_BYTES / STORE_BYTES);
    set(image, GOSSAMER_HEADER_WARM_STEPS, GOSSAMER_HEADER_BYTES / STORE_BYTES);
    set(image, GOSSAMER_HEADER_IMAGE_WORDS, sizeof image / STORE_BYTES);
    set(image, GOSSAMER_HEADER_INPUT_ADDRESS, INPUT);
    set(image, GOSSAMER_HEADER_OUTPUT_ADDRESS, OUTPUT);
    set(image, GOSSAMER_HEADER_END_ADDRESS, OUTPUT + 16);
    set(image, GOSSAMER_HEADER_INPUT_ROWS, 2);
    set(image, GOSSAMER_HEADER_INPUT_COLUMNS, 2);
    set(image, GOSSAMER_HEADER_INPUT_CHANNELS, 2);
    set(image, GOSSAMER_HEADER_INPUT_PITCH, 3);
    set(image, GOSSAMER_HEADER_OUTPUT_ROWS, 2);
    set(image, GOSSAMER_HEADER_OUTPUT_COLUMNS, 2);
    set(image, GOSSAMER_HEADER_OUTPUT_CHANNELS, 2);
    set(image, GOSSAMER_HEADER_OUTPUT_PITCH, 3);
    set(image, GOSSAMER_HEADER_CRC, gossamer_crc(0, image, sizeof image));

    struct gossamer core;
    static const int8_t input[8] = {-128, -1, 0, 1, 2, 3, 126, 127};
    int8_t output[8] = {0};
    struct gossamer_tensors tensors = {.input = input, .output = output, .input_zero_point = 5};
    EXPECT(gossamer_init(&core, (struct gossamer_bus){read_word, write_word, NULL}) == GOSSAMER_OK);
    core.verify = true;
    EXPECT(gossamer_start(&core, false) == GOSSAMER_NOT_LOADED);
    image[70] ^= 1;
    EXPECT(gossamer_load(&core, image, sizeof image) == GOSSAMER_IMAGE_CRC);
    image[70] ^= 1;
    EXPECT(gossamer_load(&core, image, sizeof image) == GOSSAMER_OK);
    EXPECT(gossamer_verify(&core) == GOSSAMER_OK);
    EXPECT(gossamer_run(&core, &tensors) == GOSSAMER_OK);
    EXPECT(memcmp(input, output, sizeof input) == 0);
    EXPECT(((const uint8_t *)store)[INPUT + 2] == 128 + 5);
    EXPECT(starts == 1);
    uint32_t cycles = 0;
    EXPECT(gossamer_cycles(&core, &cycles) == GOSSAMER_OK && cycles == 1234);
    store[2] ^= 1u << 31;
    EXPECT(gossamer_verify(&core) == GOSSAMER_VERIFY);

    static const int8_t logits[3] = {0, 10, -10};
    int8_t y[3];
    EXPECT(gossamer_softmax(logits, 3, 0.1, 1.0, y));
    /* 256 times 0.2447, 0.6652, 0.0900, less 128 */
    EXPECT(y[0] == 63 - 128 && y[1] == 170 - 128 && y[2] == 23 - 128);
    printf(failures ? "driver test: %d failures\n" : "driver test: ok\n", failures);
    return failures != 0;
}
