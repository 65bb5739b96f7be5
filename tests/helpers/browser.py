"""Where a headless Chromium and its driver are, if they are installed."""

import shutil

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
