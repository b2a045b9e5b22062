"""Programs with compressed maps on RTL."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.coding import budgets, calibrate
from gossamer.golden.compiler import Frontend, Strategy
from gossamer.golden.inference import infer
from gossamer.golden.planner import Planner, fit
from gossamer.golden.spec import CONFIGS, Error
from gossamer.sim.rtl import RtlError, Simulator
from tests.coded import every_slot
from tests.golden.test_rolling import frontend_of, strategy_for
from tests.networks import SMALL, full_groups, inputs

UP5K = CONFIGS["up5k_codec"]
CONFIGURATIONS = [
    UP5K,
    dataclasses.replace(UP5K, codec="bounded"),
    dataclasses.replace(SMALL[0], codec="lossless", store_ports=1),
    dataclasses.replace(SMALL[4], codec="bounded"),
]


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=lambda config: f"{config.name}-{config.codec}")
def simulator(request):
    return Simulator(request.param)


def assert_equal(simulator, compiled, x):
    """Outputs are the network's, and cycles the cycle model's."""
    result = simulator.run(compiled, x, seed=1)
    wanted = compiled.network.run(x)[compiled.device_output]
    assert (np.stack([compiled.output_values(data) for data in result.outputs]) == wanted).all()
    assert result.cycles == [infer(compiled, one).cycles for one in x]


def test_digits(simulator):
    frontend, x = Frontend(digits.load(), simulator.config), digits.test_set()[0]
    slots = calibrate(frontend.network, frontend.layout, x[:100], simulator.config)
    compiled = frontend.compile(Strategy(slots=slots))
    assert compiled.coded
    assert_equal(simulator, compiled, x[:10])


def test_digits_in_little_memory():
    frontend, x = Frontend(digits.load(), UP5K), digits.test_set()[0]
    slots = calibrate(frontend.network, frontend.layout, x[:100], UP5K)
    least = min(point.peak for point in Planner(frontend).points())
    points = Planner(frontend, slots=slots).points()
    compiled = fit(frontend, least - 1, points)
    assert compiled.coded
    assert_equal(Simulator(UP5K), compiled, x[:5])


def test_random_networks_and_orders(simulator, rng):
    coded = 0
    for _ in range(8):
        frontend = frontend_of(full_groups, simulator.config, rng)
        strategy = dataclasses.replace(strategy_for(frontend, rng), slots=every_slot(frontend))
        compiled = frontend.compile(strategy)
        coded += bool(compiled.coded)
        assert_equal(simulator, compiled, inputs(rng, frontend.source, 2))
    assert coded


@pytest.mark.parametrize("config", [UP5K, SMALL[1]], ids=lambda config: config.name)
def test_budgets(config, rng):
    config, lossy = dataclasses.replace(config, codec="budgeted"), 0
    simulator = Simulator(config)
    for turn in range(8):
        frontend = frontend_of(full_groups, config, rng)
        slots = budgets(frontend.layout, float(rng.choice([0.4, 0.6, 0.9])), config)
        lossless = {name: slot for name, slot in every_slot(frontend).items() if name not in slots or rng.integers(2)}
        strategy = dataclasses.replace(strategy_for(frontend, rng), strips=1) if turn % 2 else Strategy()
        strategy = dataclasses.replace(
            strategy, slots={**slots, **lossless}, budgeted=frozenset(slots.keys() - lossless.keys())
        )
        compiled = frontend.compile(strategy)
        x = inputs(rng, frontend.source, 2)
        result, wanted = simulator.run(compiled, x, seed=1), [infer(compiled, one) for one in x]
        outputs = np.stack([compiled.output_values(data) for data in result.outputs])
        assert (outputs == np.stack([one.output for one in wanted])).all()
        assert result.cycles == [one.cycles for one in wanted]
        lossy += (outputs != frontend.network.run(x)[frontend.output]).any()
    assert lossy


def test_a_row_that_does_not_fit_stops_the_core(simulator, rng):
    frontend, x = Frontend(digits.load(), simulator.config), digits.test_set()[0][:3]
    slots = every_slot(frontend)
    compiled = frontend.compile(Strategy(slots=dict.fromkeys(slots, simulator.config.store_bytes)))
    assert compiled.coded
    with pytest.raises(RtlError, match=f"^the core stopped with error {Error.SLOT}: a compressed row"):
        simulator.run(compiled, x)
