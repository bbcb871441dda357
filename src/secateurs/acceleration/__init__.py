"""Zeros that pay: pruned models run by the fastest of dense and sparse, chosen by timing."""

from secateurs.acceleration.accelerated_model import Acceleration as Acceleration
from secateurs.acceleration.accelerated_model import accelerate as accelerate
from secateurs.acceleration.layer_timing import LayerTiming as LayerTiming
from secateurs.acceleration.saved_plan import Plan as Plan
from secateurs.acceleration.stopwatch import Stopwatch as Stopwatch
