/* The device's side of MLPerf Tiny's serial protocol, for the runner of github.com/mlcommons/tiny (benchmark/runner), which
 * drives the reference firmware of its benchmark/api (version 1.x, performance and accuracy modes). This is written anew; the
 * commands, the messages that the runner looks for, and those about mistakes are the reference's.
 *
 * A command ends with '%'; an answer ends with the line m-ready. What is different: bytes that were not asked for are refused,
 * an inference without a whole input is not done, and line ends between commands do not count. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "soc.h"

#define COMMAND 80 /* characters of a command that count */

/* The buffer is the RAM that nothing else takes: between the variables and the stack. */
extern uint8_t __heap_start[], __heap_end[];

static struct gossamer core;
static enum gossamer_result begun;
static int8_t outputs[LARGEST_OUTPUT];
static bool whole; /* the buffer has all bytes of `size` */
static size_t size, filled;
static uint8_t *const buffer = __heap_start;

/* What to do to a byte of the buffer to get the value. */
static uint8_t flip(void)
{
    return network.unsigned_bytes ? 0x80 : 0;
}

static void timestamp(void)
{
    printf("m-lap-us-%lu\r\n", (unsigned long)soc_microseconds());
}

static bool infer_once(void)
{
    enum gossamer_result result = begun == GOSSAMER_OK ? soc_infer(&core, (const int8_t *)buffer, outputs) : begun;
    if (result != GOSSAMER_OK)
        printf("e-[%s]\r\n", gossamer_text(result));
    return result == GOSSAMER_OK;
}

/* Outputs are (value + 128) / 256; of the decimals three are printed, as the reference does. */
static void results(void)
{
    size_t count = soc_values(&core.program.output);
    printf("m-results-[");
    for (size_t i = 0; i < count && i < LARGEST_OUTPUT; ++i)
        printf("%s0.%03u", i ? "," : "", (unsigned)(outputs[i] + 128) * 1000 / 256);
    printf("]\r\n");
}

static void infer(void)
{
    const char *word = strtok(NULL, " ");
    int count = 1, warmups = 10;
    if (word) {
        count = atoi(word);
        if (count <= 0) {
            printf("e-[Inference iterations must be >0]\r\n");
            return;
        }
        word = strtok(NULL, " ");
        if (word)
            warmups = atoi(word);
        if (warmups < 0) {
            printf("e-[Inference warmup must be >=0]\r\n");
            return;
        }
    }
    size_t expected = soc_values(&core.program.input);
    if (begun == GOSSAMER_OK && (!whole || size != expected)) {
        printf("e-[Input db has %lu elements, expected %lu]\r\n", (unsigned long)filled, (unsigned long)expected);
        return;
    }
    printf("m-warmup-start-%d\r\n", warmups);
    while (warmups-- > 0)
        if (!infer_once())
            return;
    printf("m-warmup-done\r\nm-infer-start-%d\r\n", count);
    timestamp();
    while (count-- > 0)
        if (!infer_once())
            return;
    timestamp();
    printf("m-infer-done\r\n");
    results();
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void load(const char *word)
{
    long bytes = word ? atol(word) : 0;
    long most = (long)(__heap_end - __heap_start);
    size = filled = 0;
    whole = false;
    if (!word)
        printf("e-[Command 'db load' requires the # of bytes]\r\n");
    else if (bytes <= 0)
        printf("e-[Command 'db load' must be >0 bytes]\r\n");
    else if (bytes > most)
        printf("e-[Supplied buffer size %ld exceeds maximum of %ld]\r\n", bytes, most);
    else {
        size = (size_t)bytes;
        printf("m-[Expecting %ld bytes]\r\n", bytes);
    }
}

static void print(void)
{
    for (size_t i = 0; i < filled; ++i) {
        const char *end = i % 8 == 7 || i + 1 == filled ? "\r\n" : "-";
        printf("%s%02x%s", i % 8 ? "" : "m-buffer-", (unsigned)(buffer[i] ^ flip()), end);
    }
}

static void append(const char *digits)
{
    if (strlen(digits) % 2) {
        printf("e-[Insufficent number of hex digits]\r\n");
        return;
    }
    for (; *digits; digits += 2) {
        int high = digit(digits[0]), low = digit(digits[1]);
        if (high < 0 || low < 0) {
            printf("e-[Invalid hex digit '%.2s']\r\n", digits);
            return;
        }
        if (filled == size) {
            printf("e-[Command 'db' has more bytes than the %lu of 'db load']\r\n", (unsigned long)size);
            return;
        }
        buffer[filled++] = (uint8_t)(high << 4 | low) ^ flip();
        if (filled == size) {
            whole = true;
            printf("m-load-done\r\n");
            return; /* what follows in this command is padding */
        }
    }
}

static void db(void)
{
    const char *word = strtok(NULL, " ");
    if (!word)
        printf("e-[Command 'db' requires a subcommand]\r\n");
    else if (!strcmp(word, "load"))
        load(strtok(NULL, " "));
    else if (!strcmp(word, "print"))
        print();
    else
        append(word);
}

static void help(void)
{
    printf("Gossamer, speaking MLPerf Tiny's protocol\r\n"
           "name           who this is\r\n"
           "profile        which protocol and model\r\n"
           "timestamp      microseconds since reset\r\n"
           "db load N      expect an input of N bytes\r\n"
           "db HH[HH]*     its next bytes\r\n"
           "db print       those that have come\r\n"
           "infer N [W=10] N inferences after W others, then the results\r\n"
           "results        those of the last\r\n");
}

static void obey(char *command)
{
    const char *word = strtok(command, " ");
    if (!word)
        return;
    if (!strcmp(word, "name"))
        printf("m-name-dut-[gossamer]\r\n");
    else if (!strcmp(word, "timestamp"))
        timestamp();
    else if (!strcmp(word, "profile"))
        printf("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[%s]\r\n", network.model);
    else if (!strcmp(word, "help"))
        help();
    else if (!strcmp(word, "db"))
        db();
    else if (!strcmp(word, "infer"))
        infer();
    else if (!strcmp(word, "results"))
        results();
    else
        printf("e-[Unknown command: %s]\r\n", word);
}

int main(void)
{
    static char command[COMMAND + 1];
    printf("m-timestamp-mode-performance\r\n");
    timestamp();
    begun = soc_begin(&core);
    if (begun != GOSSAMER_OK)
        printf("e-[%s]\r\n", gossamer_text(begun));
    printf("m-init-done\r\n");
    for (;;) {
        size_t length = 0;
        printf("m-ready\r\n");
        for (int c; (c = getchar()) != '%';)
            if (c != '\r' && c != '\n' && length < COMMAND)
                command[length++] = (char)c;
        command[length] = 0;
        obey(command);
    }
}
