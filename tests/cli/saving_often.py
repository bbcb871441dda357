"""The command line, saving its progress after every step."""

import sys
from functools import partial

from secateurs.cli import main, sweep_command

sweep_command.sweep = partial(sweep_command.sweep, save_every=0.0)
main(sys.argv[1:])
