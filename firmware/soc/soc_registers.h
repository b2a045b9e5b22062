/* The SoC's windows and registers. Generated from gateware/soc_registers.py by
 * `python -m gossamer.gateware.registers`; a test compares them. */
#ifndef SOC_REGISTERS_H
#define SOC_REGISTERS_H

#define SOC_RAM 0x00000000u
#define SOC_ROM 0x20000000u
#define SOC_CORE 0x40000000u
#define SOC_PERIPHERALS 0x80000000u

/* The serial port. A write sends a byte, and waits until the port takes it; a read takes the next that has come. */
#define SOC_UART_ADDRESS 0x00u
#define SOC_UART_DATA_SHIFT 0u
#define SOC_UART_DATA_MASK 0x000000ffu
#define SOC_UART_VALID_SHIFT 8u
#define SOC_UART_VALID_MASK 0x00000100u

/* What has happened. Every write clears overflow, framing and fault. */
#define SOC_STATE_ADDRESS 0x04u
#define SOC_STATE_IRQ_SHIFT 0u
#define SOC_STATE_IRQ_MASK 0x00000001u
#define SOC_STATE_OVERFLOW_SHIFT 1u
#define SOC_STATE_OVERFLOW_MASK 0x00000002u
#define SOC_STATE_FRAMING_SHIFT 2u
#define SOC_STATE_FRAMING_MASK 0x00000004u
#define SOC_STATE_FAULT_SHIFT 3u
#define SOC_STATE_FAULT_MASK 0x00000008u

/* Clock cycles since reset, modulo 2^32. */
#define SOC_TIMER_ADDRESS 0x08u

/* The clock's rate. */
#define SOC_CLOCK_ADDRESS 0x0cu
#define SOC_CLOCK_MHZ_SHIFT 0u
#define SOC_CLOCK_MHZ_MASK 0x0000ffffu

#endif
