/* See soc.h. */

#include <stdio.h>

#include "soc.h"

static int put(char byte, FILE *file)
{
    (void)file;
    SOC_REGISTER(UART) = (uint8_t)byte;
    return (unsigned char)byte;
}

static int get(FILE *file)
{
    uint32_t word;
    (void)file;
    do {
        (void)soc_cycles();
        word = SOC_REGISTER(UART);
    } while (!(word & SOC_UART_VALID_MASK));
    return (int)(word & SOC_UART_DATA_MASK);
}

static FILE line = FDEV_SETUP_STREAM(put, get, NULL, _FDEV_SETUP_RW);
FILE *const stdin = &line;
FILE *const stdout = &line;

uint64_t soc_cycles(void)
{
    static uint32_t high, last;
    uint32_t now = SOC_REGISTER(TIMER);
    high += now < last;
    last = now;
    return (uint64_t)high << 32 | now;
}

uint32_t soc_microseconds(void)
{
    return (uint32_t)(soc_cycles() / (SOC_REGISTER(CLOCK) & SOC_CLOCK_MHZ_MASK));
}

bool soc_fault(void)
{
    bool fault = SOC_REGISTER(STATE) & SOC_STATE_FAULT_MASK;
    SOC_REGISTER(STATE) = 0;
    return fault;
}

size_t soc_values(const struct gossamer_place *place)
{
    return (size_t)place->rows * place->columns * place->channels;
}

static bool idle(void *context)
{
    (void)context;
    (void)soc_cycles();
    return true;
}

enum gossamer_result soc_begin(struct gossamer *core)
{
    enum gossamer_result result = gossamer_init(core, (struct gossamer_bus){.base = (volatile uint32_t *)SOC_CORE});
    core->idle = idle;
    if (result == GOSSAMER_OK)
        result = gossamer_load(core, network.image, network.image_bytes);
    if (result == GOSSAMER_OK && soc_values(&core->program.output) > LARGEST_OUTPUT)
        result = GOSSAMER_TOO_LARGE;
    return result == GOSSAMER_OK && soc_fault() ? GOSSAMER_BUS : result;
}

enum gossamer_result soc_infer(struct gossamer *core, const int8_t *input, int8_t *outputs)
{
    struct gossamer_tensors tensors = {.input = input, .output = outputs, .input_zero_point = network.input_zero_point};
    enum gossamer_result result = gossamer_run(core, &tensors);
    if (result == GOSSAMER_OK && soc_fault())
        result = GOSSAMER_BUS;
    if (result == GOSSAMER_OK && network.softmax
        && !gossamer_softmax(outputs, soc_values(&core->program.output), network.softmax_scale, network.softmax_beta, outputs))
        result = GOSSAMER_TENSOR;
    return result;
}
