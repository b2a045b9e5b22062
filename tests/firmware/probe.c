/* What a program must not do, and what then shows: test_soc.py runs this on the SoC. Each line is a claim and 1 if it holds. */

#include <stdio.h>

#include "soc.h"

#define AT(type, address) (*(volatile type *)(uintptr_t)(address))

static uint8_t bytes[16] __attribute__((aligned(4)));
const struct network network; /* none */

static void claim(const char *text, bool holds)
{
    printf("%s: %d\r\n", text, holds);
}

/* Whether the access in front of this was faulty. */
static bool once(void)
{
    return soc_fault() && !soc_fault();
}

int main(void)
{
    static const uint32_t nowhere[] = {
        0x00ffff00, 0x01000000, 0x10000000, 0x1ffffffc, 0x20ffff00, 0x21000000, 0x3ffffffc, 0x41000000, 0x60000000,
        0x7ffffffc, 0x80000010, 0x80ffff00, 0x81000000, 0xc0000000, 0xe0000000, 0xfffffffc,
    };
    struct gossamer core;
    volatile uint32_t *const store = &AT(uint32_t, SOC_CORE + GOSSAMER_STORE_WINDOW);
    claim("no fault at first", !soc_fault());

    bool all = true;
    AT(uint32_t, bytes) = 0x04030201;
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; ++i) {
        (void)AT(uint32_t, nowhere[i]);
        bool read = once();
        AT(uint32_t, nowhere[i]) = 0xffffffff;
        bool written = once();
        AT(uint8_t, nowhere[i] + 3) = 0xff;
        all = all && read && written && once();
    }
    claim("accesses that lead nowhere are faults", all);
    claim("memory is as before", AT(uint32_t, bytes) == 0x04030201 && !soc_fault());

    for (uint32_t i = 0; i < sizeof bytes; ++i)
        AT(uint8_t, bytes + i) = (uint8_t)(0xa0 + i);
    AT(uint16_t, bytes + 6) = 0xbeef;
    claim("bytes and halfwords of memory", AT(uint32_t, bytes) == 0xa3a2a1a0 && AT(uint32_t, bytes + 4) == 0xbeefa5a4
        && AT(int8_t, bytes + 9) == (int8_t)0xa9 && AT(uint16_t, bytes + 10) == 0xabaa);

    claim("there is a core", gossamer_init(&core, (struct gossamer_bus){.base = &AT(uint32_t, SOC_CORE)}) == GOSSAMER_OK);
    (void)AT(uint32_t, SOC_CORE + 0x40);
    claim("the core refuses what is no register", once());
    (void)store[core.store_words * core.store_bytes / 4];
    claim("the core refuses what is behind the store", once());
    store[0] = 0x11223344;
    store[1] = 0x55667788;
    AT(uint8_t, SOC_CORE + GOSSAMER_STORE_WINDOW + 1) = 0xee;
    AT(uint16_t, SOC_CORE + GOSSAMER_STORE_WINDOW + 6) = 0xccdd;
    claim("bytes and halfwords of the store", store[0] == 0x1122ee44 && store[1] == 0xccdd7788 && !soc_fault());

    /* No image: the core ends with an error; with interrupts on the line is high until they are off. */
    AT(uint32_t, SOC_CORE + GOSSAMER_CONTROL_ADDRESS) = GOSSAMER_CONTROL_START_MASK | GOSSAMER_CONTROL_INTERRUPT_ENABLE_MASK;
    while (AT(uint32_t, SOC_CORE + GOSSAMER_STATUS_ADDRESS) & GOSSAMER_STATUS_BUSY_MASK)
        ;
    claim("the interrupt can be read", SOC_REGISTER(STATE) & SOC_STATE_IRQ_MASK);
    AT(uint32_t, SOC_CORE + GOSSAMER_CONTROL_ADDRESS) = 0;
    claim("the interrupt ends", !(SOC_REGISTER(STATE) & SOC_STATE_IRQ_MASK));

    AT(uint8_t, SOC_PERIPHERALS + SOC_UART_ADDRESS + 1) = 'X'; /* not sent */
    AT(uint32_t, SOC_PERIPHERALS + SOC_TIMER_ADDRESS) = 0;
    AT(uint32_t, SOC_PERIPHERALS + SOC_CLOCK_ADDRESS) = 0;
    claim("what cannot be written is ignored", !soc_fault() && SOC_REGISTER(CLOCK) == 1 && SOC_REGISTER(TIMER) > 1000);
    uint32_t before = SOC_REGISTER(TIMER);
    claim("the timer goes on", SOC_REGISTER(TIMER) - before - 1 < 500);
    claim("no byte has come", !(SOC_REGISTER(UART) & SOC_UART_VALID_MASK));
    printf("done\r\n");
    return 0;
}
