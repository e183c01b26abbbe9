"""The page on testing, followed by somebody who has the SDK and pytest."""

import subprocess
import sys

from tests.docs.pages import ROOT, blocks


def test_the_tests_of_the_page_pass_with_pytest_alone(tmp_path):
    found = blocks(ROOT / "docs" / "testing.md", "python")
    (tmp_path / "conftest.py").write_text("".join(each.text for each in found if "file=conftest.py" in each.words))
    tests = "".join(each.text for each in found if len(each.words) == 1)
    (tmp_path / "test_page.py").write_text(tests)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:timeout", "-W", "error"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{tests.count('async def test_')} passed" in done.stdout
