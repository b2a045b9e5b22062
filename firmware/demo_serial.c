/* The driver on a PC, with the core behind a serial line (docs/uart.md):
 *
 *     demo_serial /dev/ttyUSB1 image.bin input.bin output.bin zero_point
 *
 * input.bin and output.bin are int8 tensors. The line runs at 1 Mbit/s. An access whose answer is
 * not right is an error; `gossamer run --backend serial` repeats it instead. */

#define _DEFAULT_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "gossamer.h"

enum { WRITE = 2, DONE = 0xcc, PATIENCE = 1000, SILENCE = 100 /* milliseconds */ };

static bool receive(int line, uint8_t *bytes, size_t count)
{
    struct pollfd waiting = {.fd = line, .events = POLLIN};
    while (count) {
        ssize_t got = poll(&waiting, 1, PATIENCE) == 1 ? read(line, bytes, count) : -1;
        if (got <= 0)
            return false;
        bytes += got;
        count -= (size_t)got;
    }
    return true;
}

/* The CRC behind some bytes when it was `crc` in front. Its least significant bit is sent first. */
static uint16_t crc16(uint16_t crc, const uint8_t *bytes, size_t count)
{
    while (count--) {
        crc ^= *bytes++;
        for (int bit = 0; bit < 8; ++bit)
            crc = (uint16_t)(crc & 1 ? crc >> 1 ^ 0x8408 : crc >> 1);
    }
    return crc;
}

static void put(uint8_t *bytes, uint32_t value, int count)
{
    for (int i = 0; i < count; ++i)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

/* A command for one word. Each has another first bit than the one before. */
static bool transfer(int line, uint32_t address, bool writes, uint32_t *word)
{
    static uint32_t tag;
    uint8_t sent[12], answer[7];
    size_t size = writes ? 12 : 6, words = writes ? 0 : 4;
    put(sent, 0xff000000 | address | (writes ? WRITE : 0) | (tag ^= 1), 4);
    uint16_t crc = crc16(0xffff, sent, 4);
    put(sent + 4, crc, 2);
    if (writes) {
        put(sent + 6, *word, 4);
        crc = crc16(crc, sent + 6, 4);
        put(sent + 10, crc, 2);
    }
    if (write(line, sent, size) != (ssize_t)size || !receive(line, answer, words + 3))
        return false;
    crc = crc16(crc, answer, words + 1);
    if (answer[words] != DONE || answer[words + 1] != (crc & 0xff) || answer[words + 2] != crc >> 8)
        return false;
    if (!writes)
        *word = answer[0] | (uint32_t)answer[1] << 8 | (uint32_t)answer[2] << 16 | (uint32_t)answer[3] << 24;
    return true;
}

static bool read_word(void *context, uint32_t address, uint32_t *word)
{
    return transfer(*(int *)context, address, false, word);
}

static bool write_word(void *context, uint32_t address, uint32_t word)
{
    return transfer(*(int *)context, address, true, &word);
}

static uint8_t *contents(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(1 << 24);
    if (!file || !data) {
        perror(path);
        exit(2);
    }
    *bytes = fread(data, 1, 1 << 24, file);
    fclose(file);
    return data;
}

static size_t values(const struct gossamer_place *place)
{
    return (size_t)place->rows * place->columns * place->channels;
}

static void check(enum gossamer_result result)
{
    if (result != GOSSAMER_OK) {
        fprintf(stderr, "%s\n", gossamer_text(result));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: demo_serial PORT image.bin input.bin output.bin zero_point\n");
        return 2;
    }
    size_t image_bytes, input_bytes;
    uint8_t *image = contents(argv[2], &image_bytes), *input = contents(argv[3], &input_bytes);
    int line = open(argv[1], O_RDWR | O_NOCTTY);
    struct termios settings;
    if (line < 0 || tcgetattr(line, &settings)) {
        perror(argv[1]);
        return 2;
    }
    cfmakeraw(&settings);
    cfsetspeed(&settings, B1000000);
    tcsetattr(line, TCSANOW, &settings);
    poll(NULL, 0, SILENCE);
    tcflush(line, TCIFLUSH);

    struct gossamer core;
    check(gossamer_init(&core, (struct gossamer_bus){read_word, write_word, &line}));
    check(gossamer_load(&core, image, image_bytes));
    size_t outputs = values(&core.program.output);
    int8_t *output = calloc(outputs, 1);
    if (input_bytes != values(&core.program.input) || !output) {
        fprintf(stderr, "the input must have %zu bytes, not %zu\n", values(&core.program.input), input_bytes);
        return 2;
    }
    struct gossamer_tensors tensors = {
        .input = (const int8_t *)input, .output = output, .input_zero_point = (int8_t)atoi(argv[5])};
    check(gossamer_run(&core, &tensors));
    uint32_t cycles;
    check(gossamer_cycles(&core, &cycles));
    FILE *file = fopen(argv[4], "wb");
    if (!file || fwrite(output, 1, outputs, file) != outputs || fclose(file)) {
        perror(argv[4]);
        return 2;
    }
    printf("%lu cycles\n", (unsigned long)cycles);
    return 0;
}
