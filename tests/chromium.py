"""Pages as a headless browser shows them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

FIRST = """<script>
  window.refused = [];
  addEventListener("securitypolicyviolation", event => refused.push(event.blockedURI));
  addEventListener("error", event => refused.push(event.message));
</script>"""
LAST = """<script type="module">
  const wait = ms => new Promise(done => setTimeout(done, ms));
  const get = id => document.getElementById(id);
  await wait(1500);
  const found = await (async () => {{ {script} }})();
  document.body.dataset.found = encodeURIComponent(JSON.stringify({{ found, refused }}));
</script>"""


def seen(page: Path, script: str, width: int = 1000) -> Any:
    """What the body of a function, `script`, gives in a page that has been drawn.

    The test is skipped where there is no Chromium, and fails where the page asks for anything outside of it
    or a script of it fails.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs Chromium: apt install chromium")
    tried = page.with_name(f"tried-{page.name}")
    text = page.read_text().replace("<title>", f"{FIRST}<title>", 1)
    tried.write_text(text.replace("</html>", f"{LAST.format(script=script)}</html>"))
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},3000",
            f"--user-data-dir={page.parent / 'browser'}", "--virtual-time-budget=20000",
            "--disable-background-networking", "--dump-dom", f"file://{tried}",
        ],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    found = re.search(r'data-found="([^"]+)"', done.stdout)
    assert found, done.stderr[-2000:]
    answer = json.loads(unquote(found[1]))
    assert answer["refused"] == []
    return answer["found"]
