"""``python -m torch_bgdebias.cli``: the console command where its script is not on the path."""

from __future__ import annotations

import sys

from torch_bgdebias.cli import main

sys.exit(main())
