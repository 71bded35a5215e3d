"""`python -m ui` runs the dashboard with the settings of environment and file."""

import sys

from service.run import run
from service.settings import load
from ui.config import UiConfig
from ui.main import serve

sys.exit(run(serve, load(UiConfig, "ui")))
