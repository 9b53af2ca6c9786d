import pytest

from pp_env import PickPlaceConfig
from tests.fakes import FakeSimulator
from tests.sim_contract import SimulatorContract


class TestFake(SimulatorContract):
    @pytest.fixture
    def simulator(self):
        return FakeSimulator(PickPlaceConfig())
