"""Every tensor is where its device says: on a device in Python that meets no CPU tensor, the numbers are a CPU's."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

from se_framework.config.composing import config_dir, groups

ROOT = Path(__file__).parent.parent.parent
SHORT = (
    "experiment wgan_gp model.width=8 metric.network.width=8 players.theta.ema=0.9",
    "experiment mle_flow model.couplings=2 model.width=8",
    "experiment vanilla_gan model.width=8 metric.network.width=8 data.labels=true ensemble.size=2",
)
LONG = (
    *(f"experiment {name}" for name in groups([config_dir()])["experiment"]),
    *(f"experiment fgan divergence={name}" for name in ("renyi", "total_variation")),
    *(f"experiment gmmn data=ring8 divergence={name}" for name in ("energy", "sliced_wasserstein", "mmd_laplacian")),
    "experiment digits model=conv_generator metric=conv_r1",
    "experiment mle_flow model=spline_flow model.couplings=2 model.width=8",
    *(f"row {name}" for name in ("gpu_vanilla", "gpu_wgan_gp", "gpu_ensemble")),
)
pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no backend written in Python",
)


@pytest.mark.soak
def test_nothing_is_forgotten_on_the_cpu_and_what_is_would_be_found(soak):
    command = [sys.executable, "-m", "tests.support.other_device", *SHORT, *(LONG if soak else ()), "mistake"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "in mistake" in done.stderr and "tensors on elsewhere:0 and on cpu" in done.stderr, done.stderr[-3000:]
