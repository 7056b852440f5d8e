"""`python main.py`: trains this variant; `python main.py --help` shows the options."""

import sys
from pathlib import Path

from common.command_line import main
from config import config
from gan_task import VARIANT

if __name__ == "__main__":
    sys.exit(main(VARIANT, config, Path(__file__).parent))
